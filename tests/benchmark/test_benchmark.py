import json

import numpy as np
import pytest
from conftest import annotation, only_run, write_coco
from PIL import Image

from segtrain.configuration.folder import options

FAST = {
    "memory": ["measure.listed=0", "measure.samples=8", "measure.epochs=2"],
    "targets": ["measure.rounds=1", "measure.samples=4", "dataset=coco2017",
                "dataset.splits.train=val2017", "dataset.source.root=."],
    "loader": ["measure.samples=4", "measure.rounds=1", "measure.num_workers=[0]"],
    "shards": ["measure.samples=4", "measure.rounds=1", "measure.num_workers=[0]"],
    "detector": ["measure.rounds=1", "measure.size=[64, 96]", "measure.objects=2", "batch_size=1",
                 "architecture=mask_rcnn", "architecture.backbone.weights=none",
                 "dataset=shapes_instances"],
    "crf": ["measure.rounds=1", "measure.size=[40, 50]", "measure.classes=3", "measure.threads=1"],
    "instance_metric": ["measure.images=3", "measure.size=[60, 80]"],
    "loss": ["measure.rounds=1", "measure.classes=5", "measure.size=[65, 64]", "batch_size=2"],
    "metric": ["measure.rounds=1", "measure.shape=[1, 64, 64]"],
    "sliding": ["measure.rounds=1", "measure.size=[60, 70]", "measure.crop_size=[33, 33]",
                "measure.stride=[22, 22]", "trainer.precision=32-true",
                "architecture.backbone.name=test_resnet", "architecture.backbone.weights=none",
                "architecture.backbone.multi_grid=null"],
    "step": ["measure.rounds=1", "measure.size=[33, 33]", "batch_size=2",
             "architecture=deeplabv3_torchvision", "architecture.backbone.weights=none"],
    "training": ["measure.steps=1", "measure.warm_up=1", "batch_size=2", "dataset.num_workers=0",
                 "experiment=quickstart"],
    "model": [
        "measure.rounds=1", "measure.size=[64, 64]", "batch_size=2",
        "architecture.backbone.name=resnet50", "architecture.backbone.weights=none",
    ],
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", options("measure"))
def test_measures_and_writes(name, segtrain, tmp_path):
    write_coco(tmp_path, [annotation(1, 3, [[10, 10, 30, 10, 30, 30]])])
    code, out, err = segtrain("benchmark", f"measure={name}", *FAST[name])
    assert code == 0, err
    content = json.loads((only_run("outputs/benchmark/*") / "benchmark.json").read_text())
    assert content["rows"]
    assert "torch" in content["versions"]
    if name == "metric":
        assert max(row["largest IoU difference"] for row in content["rows"]) < 1e-6
    if name == "training":
        (row,) = content["rows"]
        assert row["data wait ms"] > 0
        assert row["backward ms"] > row["loss ms"] > 0
        assert 0 < row["fraction of it"] < 1
    if name == "crf":
        (row,) = content["rows"]
        assert row["accuracy after %"] > row["accuracy before %"]
        assert row["pydensecrf2 ms"] == "not installed" or row["equal labels %"] > 99
    if name == "instance_metric":
        assert len(content["rows"]) == 4
        assert max(row["largest score difference"] for row in content["rows"]) < 1e-9
        assert all(row["times faster"] > 0 for row in content["rows"])
    if name == "sliding":
        assert max(row["largest difference"] for row in content["rows"]) < 1e-4
    if name == "detector":
        assert [row["side"] for row in content["rows"]] == ["segtrain", "torchvision"] * 2
        assert all(row["time ratio"] > 0 and row["memory ratio"] > 0 for row in content["rows"])
    if name == "loader":
        ways = [row["way"] for row in content["rows"]]
        assert len(ways) == 5
        assert ways[:3] == ["segtrain", "segtrain, cached", "segtrain, shards"]
    if name == "shards":
        assert [row["way"] for row in content["rows"]] == ["segtrain", "segtrain, shards"]
    if name == "targets":
        assert content["rows"][0]["masks are pycocotools'"] == "True"
    if name == "memory":
        assert [row["epoch"] for row in content["rows"]] == [1, 2]
        assert content["rows"][1]["of the first epoch"] > 0.9
    if name == "step":
        assert [row["side"] for row in content["rows"]] == ["segtrain", "torchvision"]
        assert all(row["time ratio"] > 0 and row["memory ratio"] > 0 for row in content["rows"])
    if name == "model":
        (row,) = content["rows"]
        assert row["parameters"] > 20e6
        assert row["GFLOPs"] > 1


def test_loader_reads_real_files(segtrain, real_data):
    code, _, err = segtrain("benchmark", "measure=loader", "dataset=voc", *FAST["loader"])
    assert code == 0, err


def test_loader_of_instances(segtrain, tmp_path):
    write_coco(tmp_path, [annotation(1, 3, [[10, 10, 30, 10, 30, 30]])])
    code, out, err = segtrain(
        "benchmark", "measure=loader", "dataset=coco2017", "dataset.source.root=.",
        "dataset.splits.train=val2017", *FAST["loader"],
    )  # fmt: skip
    assert code == 0, err
    assert "torchvision references" not in out


def test_targets_need_instances(segtrain):
    code, _, err = segtrain("benchmark", "measure=targets")
    assert code == 2
    assert "needs a COCO instance set, not shapes" in err


@pytest.mark.slow
def test_step_against_smp(segtrain):
    code, out, err = segtrain(
        "benchmark", "measure=step", "architecture=pspnet", "architecture.auxiliary=false",
        "architecture.backbone.name=resnet50", "architecture.backbone.weights=none",
        "measure.rounds=1", "measure.size=[33, 33]", "batch_size=2",
    )  # fmt: skip
    assert code == 0, err
    assert "smp" in out


@pytest.mark.slow
def test_step_with_another_network(segtrain):
    code, _, err = segtrain(
        "benchmark", "measure=step", "architecture=deeplabv3", "measure.size=[33, 33]",
        "architecture.backbone.name=resnet50", "architecture.backbone.weights=none",
    )  # fmt: skip
    assert code == 2
    assert "not the same network: 39,0" in err
    assert "choose architecture=deeplabv3_torchvision" in err


def test_step_without_a_peer(segtrain):
    code, _, err = segtrain("benchmark", "measure=step", "architecture=encnet")
    assert code == 2
    assert "EncNet has no peer; these have: DeepLabv3" in err


def test_crf_of_a_photograph(segtrain, tmp_path):
    rng = np.random.default_rng(0)
    files = {"image": tmp_path / "image.png", "mask": tmp_path / "mask.png"}
    Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(files["image"])
    mask = np.zeros((30, 40), np.uint8)
    mask[:, 20:], mask[:3] = 2, 255
    Image.fromarray(mask).save(files["mask"])
    given = [f"measure.{key}={path}" for key, path in files.items()]
    code, _, err = segtrain("benchmark", "measure=crf", *FAST["crf"], *given)
    assert code == 0, err
    (row,) = json.loads((only_run("outputs/benchmark/*") / "benchmark.json").read_text())["rows"]
    assert row["size"] == "30x40"
    code, _, err = segtrain("benchmark", "measure=crf", "measure.classes=2", *given)
    assert code == 2
    assert "train ids from 2 up; set measure.classes" in err
    code, _, err = segtrain("benchmark", "measure=crf", given[0])
    assert code == 2
    assert "go together" in err


def test_networks_that_find_instances_are_measured_otherwise(segtrain):
    code, _, err = segtrain("benchmark", "experiment=mask_rcnn_shapes")
    assert code == 2
    assert "measure=training" in err


@pytest.mark.slow
def test_a_peer_in_another_precision(segtrain):
    settings = [*FAST["step"], "trainer.precision=32-true", "measure.peer_precision=bf16-mixed"]
    assert segtrain("benchmark", "measure=step", *settings)[0] == 0
    content = json.loads((only_run("outputs/benchmark/*") / "benchmark.json").read_text())
    assert [row["precision"] for row in content["rows"]] == ["32-true", "bf16-mixed"]
    code, _, err = segtrain("benchmark", "measure=step", *settings, "measure.peer_precision=half")
    assert code == 2
    assert "16-mixed" in err


@pytest.mark.parametrize("override", ["trainer=ddp_cpu", "measure.random_data=true"])
def test_training_with_two_processes_and_without_data(segtrain, override):
    assert segtrain("benchmark", "measure=training", *FAST["training"], override)[0] == 0
    (row,) = json.loads((only_run("outputs/benchmark/*") / "benchmark.json").read_text())["rows"]
    assert row["device"].startswith("2 x" if "ddp" in override else "1 x")
    assert row["images/s"] > 0
