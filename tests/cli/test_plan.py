"""`plan` from the command line, with data sets absent, present and verified."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import write_pair


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SEGTRAIN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


def planned(segtrain, *arguments) -> dict:
    code, out, err = segtrain("plan", "measure_speed=false", "output=plan.json", *arguments)
    assert code == 0, err
    return json.loads(Path("plan.json").read_text()) | {"out": out}


def test_the_whole_table_with_nothing_there(segtrain):
    plan = planned(segtrain)
    assert len(plan["targets"]) == 20
    trainings = {row["experiment"]: row for row in plan["trainings"]}
    assert len(trainings) == len(plan["trainings"]) >= 28
    assert {row["state"] for row in plan["data"]} == {"absent"}
    assert {row["state"] for row in plan["weights"]} == {"to fetch"}
    # From the epochs and the published number of images.
    assert trainings["encnet_voc_coco"]["steps"] == math.ceil(50 * 10582 / 16)
    assert trainings["deeplabv3_cityscapes"]["images"] == 90_000 * 16
    assert trainings["deeplabv3_cityscapes"]["params"] == 58_040_147  # 19 classes
    assert trainings["deeplabv3_cityscapes"]["time"] == "-"
    assert sum(row["steps"] for row in trainings.values()) > 2e6
    assert "≤" in plan["totals"]["total"]  # COCO's images with VOC's classes are not counted yet
    assert "58 GB of archives" in plan["totals"]["disk"]  # each once, though sets share them
    voc = next(row for row in plan["data"] if row["dataset"] == "voc")
    assert voc["remedy"] == "segtrain prepare dataset=voc"


def write_voc(root: Path) -> None:
    made = root / "voc2012/VOCdevkit/VOC2012"
    for index, name in enumerate("abc"):
        write_pair(made, name, np.full((20, 30), index, np.uint8))
    (made / "images").rename(made / "JPEGImages")
    (made / "masks").rename(made / "SegmentationClass")
    lists = made / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for split, names in {"train": "ab", "val": "c", "trainval": "abc", "trainaug": "ab"}.items():
        (lists / f"{split}.txt").write_text("\n".join(names))


def test_data_becomes_present_verified_and_changed(segtrain, tmp_path):
    def state():
        plan = planned(segtrain, "experiments=deeplabv3_voc")
        return plan["data"][0]["state"], plan["data"][0]["remedy"]

    write_voc(tmp_path / "data")
    assert state() == ("present", "to verify: segtrain prepare dataset=voc")
    code, _, err = segtrain("prepare", "dataset=voc", "complete=false", "verify=null",
                            "dataset.preparation.archives=[]", "dataset.num_workers=0")  # fmt: skip
    assert code == 0, err
    assert state() == ("verified", "")
    shutil.copy(tmp_path / "data/voc2012/VOCdevkit/VOC2012/JPEGImages/a.jpg",
                tmp_path / "data/voc2012/VOCdevkit/VOC2012/JPEGImages/b.jpg")  # fmt: skip
    assert state()[0] == "present"
    (tmp_path / "data/voc2012/VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").unlink()
    kind, remedy = state()
    assert kind == "incomplete"
    assert "no val" in remedy


def test_shapes_are_timed_and_the_time_is_kept(segtrain):
    arguments = ["plan", "experiments=glob(deeplabv3_sh*)", "trainer.max_steps=600",
                 "trainer.accelerator=cpu", "batch_size=2", "seeds=[1,2]"]  # fmt: skip
    code, out, err = segtrain(*arguments)
    assert code == 0, err
    assert "timing      deeplabv3_shapes, 2 x 96x96" in out
    assert "2 trainings, 1,200 steps, 2,400 images" in out
    code, again, _ = segtrain(*arguments)
    assert "timing  " not in again
    assert out.split("What is wanted")[1] == again.split("What is wanted")[1]
    code, once_more, _ = segtrain(*arguments, "measure_speed=true")
    assert "timing  " in once_more


def test_on_several_gpus(segtrain):
    """A batch of 4 is for four GPUs at most; time of computing is shared, the rest comes on top."""
    chosen = ["experiments=deeplabv3_shapes", "batch_size=4", "trainer.max_steps=1000"]
    plan = planned(segtrain, *chosen, "gpus=[1,2,8]", "tflops=0.1", "bandwidth=1000", "latency=0",
                   "seeds=[1,2]")  # fmt: skip
    assert "counting    deeplabv3_shapes" in plan["out"]
    one, two, eight = plan["scaling"]
    assert [row["used"] for row in (one, two, eight)] == [1, 2, 4]
    assert [row["gpus"] for row in (one, two, eight)] == [1, 2, 8]
    assert [row["batch"] for row in (one, two, eight)] == [4, 2, 1]
    assert one["step_time"] == pytest.approx(4 * one["operations"] / 0.1e12)
    assert one["time"] == pytest.approx(1000 * one["step_time"])
    assert two["step_time"] == pytest.approx(one["step_time"] / 2, rel=0.01)
    assert eight["gpu_hours"] == pytest.approx(one["gpu_hours"], rel=0.01)
    assert one["gradients"] == 0 < two["gradients"] < eight["gradients"]
    assert one["memory"] > eight["memory"]
    assert one["data"] == "-"  # drawn
    hours = f"{2 * eight['gpu_hours']:.3g} GPU hours"
    assert plan["totals"]["8 GPUs"].endswith(f"{hours} in use")
    again = planned(segtrain, *chosen, "gpus=8", "tflops=0.1")
    assert "counting" not in again["out"]
    assert [row["used"] for row in again["scaling"]] == [4]


def test_several_gpus_from_the_time_of_a_step(segtrain):
    chosen = ["experiments=deeplabv3_shapes", "trainer.accelerator=cpu", "batch_size=2", "gpus=1"]
    code, _, err = segtrain("plan", *chosen, "output=plan.json")
    assert code == 0, err
    plan = json.loads(Path("plan.json").read_text())
    (training,), (scaled,) = plan["trainings"], plan["scaling"]
    assert scaled["step_time"] == pytest.approx(float(training["step_time"]), rel=0.01)
    unknown = planned(segtrain, "experiments=deeplabv3_shapes", "batch_size=4", "gpus=8")
    assert "scaling" not in unknown
    assert "not known for 1, give tflops or measure_speed" in unknown["totals"]["8 GPUs"]


def test_bytes_read_of_a_set_that_is_not_here(segtrain):
    plan = planned(segtrain, "experiments=deeplabv3_cityscapes", "gpus=8", "tflops=60")
    (row,) = plan["scaling"]
    assert row["used"] == 8
    assert row["data"] == pytest.approx(11.9e9 / 2975 * 16 / row["step_time"])


def test_fits_the_terminal(segtrain, monkeypatch):
    for width in (100, 160):
        monkeypatch.setenv("COLUMNS", str(width))
        plan = planned(segtrain, "experiments=[deeplabv3_voc_coco,encnet_context]",
                       "gpus=[1,8]", "tflops=60")  # fmt: skip
        table = plan["out"].split("total  ")[0]
        assert max(map(len, table.splitlines())) <= width


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["experiments=[pspnet_vok]"], ["'pspnet_vok'", "nearest: pspnet_voc"]),
        (["experiment=pspnet_voc"], ["experiments=[...]"]),
        (["experiments=pspnet_voc", "trainer.max_stepz=1"], ["max_stepz", "nearest: max_steps"]),
        (["experiments=pspnet_voc", "fcn8s_voc:seed=1"], ["fcn8s_voc", "are pspnet_voc"]),
        (["gpus=[0]"], ["gpus=[0]", "[1,8,64]"]),
        (["gpus=eight"], ["gpus=eight"]),
        (["gpus=8", "tflops=0"], ["tflops=0", "above 0"]),
        (["gpus=8", "bandwidth=fast"], ["bandwidth=fast"]),
        (["output=plan.pdf"], ["output=plan.pdf", ".json"]),
    ],
)
def test_mistakes(segtrain, arguments, parts):
    code, _, err = segtrain("plan", "measure_speed=false", *arguments)
    assert code == 2
    assert all(part in err for part in parts), err
