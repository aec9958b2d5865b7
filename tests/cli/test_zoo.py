"""`segtrain zoo`, and published networks in the other commands."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import annotation, only_run, results_of, write_coco
from predicting import picture, torchvisions_fcn
from tabling import evaluation, write_results

from segtrain import UserError, build, load
from segtrain.cli import reproduce
from segtrain.cli.child import Outcome
from segtrain.zoo.catalogue import find

SMALL = ["inference.size={short:32}", "trainer.accelerator=cpu", "report=null",
         "dataset.num_workers=0"]  # fmt: skip
NAME = "torchvision/fcn_resnet50"


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """torchvision's FCN with random weights, in place of the trained one."""
    model = torchvisions_fcn(33, 41)
    path = tmp_path_factory.mktemp("zoo") / "w.pth"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """COCO with three images of val2017, one of which shows a person."""
    monkeypatch.setenv("SEGTRAIN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    write_coco(tmp_path / "data" / "coco", [annotation(1, 7, [[10, 10, 30, 10, 30, 30, 10, 30]])])


def test_the_list(segtrain):
    code, out, _ = segtrain("zoo")
    assert code == 0
    for part in (NAME, "FCN", "cocovoc", "60.50", "142 MB", "BSD-3-Clause"):
        assert part in out
    code, out, _ = segtrain("zoo", "system=fcn", "name=*101", "output=[zoo.md,zoo.json]")
    assert "torchvision/fcn_resnet101" in out
    assert "torchvision/fcn_resnet50" not in out
    assert "| torchvision/fcn\\_resnet101 | FCN |" in Path("zoo.md").read_text()
    records = {row["name"]: row for row in json.loads(Path("zoo.json").read_text())}
    row = records["fcn_resnet101"]
    assert row["protocols"]["single"]["published"] == {"miou": 63.7, "pixel_accuracy": 91.9}
    assert row["cached"] is False


def test_the_list_imports_nothing_heavy():
    code = (
        "import sys; from segtrain.cli.main import main; main(['zoo']); "
        "print(sorted({'torch', 'hydra', 'cv2', 'numpy', 'omegaconf'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["zoo", "nam=x"], ["unknown key 'nam'", "system="]),
        (["zoo", "name=nothing_like_it"], ["'nothing_like_it'"]),
        (["zoo", "dataset=vocc"], ["dataset=vocc", "cocovoc"]),
        (["zoo", "output=zoo.csv"], [".md, .json"]),
        (["zoo", "check=unet"], ["'unet'"]),
        (["evaluate", "weights=torchvision/fcn"], ["torchvision has no 'fcn'", NAME]),
        (["evaluate", "weights=gone.pth"], ["gone.pth: no such"]),
        (["evaluate", f"weights={NAME}", "run=x"], ["give one of run="]),
        (["evaluate", f"weights={NAME}", "protocol=many"], ["protocol=many", "tested by single"]),
        (["evaluate", "run=x", "protocol=multiscale"], ["weights=<zoo>/<name>", "inference="]),
        (["evaluate", f"weights={NAME}", "weights_file=gone.pth"], ["weights_file=gone.pth"]),
        (["evaluate", "weights=own.pth"], ["own.pth", "of no network that is known"]),
        (["export", f"weights={NAME}", "run=x"], ["give one of run="]),
        (["predict", "weights=own.pth", "input=a.png"], ["of no network that is known"]),
    ],
    ids=lambda value: " ".join(value[:3]),
)  # fmt: skip
def test_mistakes(segtrain, arguments, parts):
    Path("x").mkdir()  # a run of that name is looked for first
    torch.save({"conv.weight": torch.zeros(1)}, "own.pth")
    picture("a.png")
    code, _, err = segtrain(*arguments)
    assert code == 2
    assert "Traceback" not in err
    for part in parts:
        assert part in err


def test_a_network_is_evaluated_beside_what_was_published(segtrain, file):
    code, out, err = segtrain("evaluate", f"weights={NAME}", f"weights_file={file}", *SMALL)
    assert code == 0, err
    results = results_of(only_run("outputs/evaluate/*"))
    zoo, row = results["zoo"], find(NAME)
    assert (zoo["zoo"], zoo["name"], zoo["protocol"]) == ("torchvision", "fcn_resnet50", "single")
    assert (zoo["address"], zoo["published"]) == (row.address, dict(row.protocols["single"][1]))
    assert zoo["sha256"] == results["checkpoint_sha256"]
    assert zoo["unlike"] == ["other settings of inference", "another file than the zoo's"]
    assert results["published"]["value"] == 0.605
    assert results["published"]["comparable"] is False
    assert (results["images"], results["precision"]) == (3, "32-true")
    assert results["protocol"]["size"] == {"short": 32}
    measured = 100 * results["metrics"]["pixel_accuracy"]
    for part in ("91.40", f"{measured:.2f}", f"{measured - 91.4:+.2f}", "not as it was published"):
        assert part in out
    assert "is not the file of torchvision/fcn_resnet50" in out + err


def test_a_file_is_recognised_by_its_keys(segtrain, file):
    chosen = ["dataset=cocovoc", "dataset.source.min_area=null", "inference=whole"]
    code, out, err = segtrain("evaluate", f"weights={file}", *chosen, *SMALL, "split=val2017",
                              "trainer.precision=32-true")  # fmt: skip
    assert code == 0, err
    assert "looks like torchvision FCN ResNet-50 for 21 classes" in out + err
    named = results_of(only_run("outputs/evaluate/*"))
    assert named["zoo"]["name"] == str(file)
    assert named["published"] is None
    code, _, err = segtrain("evaluate", f"weights={NAME}", f"weights_file={file}", *SMALL,
                            "hydra.run.dir=outputs/same")  # fmt: skip
    assert results_of(Path("outputs/same"))["metrics"] == named["metrics"]


def test_other_classes_are_refused_with_the_difference(segtrain, file):
    code, _, err = segtrain("evaluate", f"weights={NAME}", f"weights_file={file}", *SMALL,
                            "dataset=shapes")  # fmt: skip
    assert code == 2
    for part in ("torchvision/fcn_resnet50 is for other classes than the data set", "knows 21",
                 "does not know circle"):  # fmt: skip
        assert part in err
    code, _, err = segtrain("evaluate", f"weights={file}", "dataset=context59", "inference=whole")
    assert code == 2
    assert "for 21 classes, dataset=context59 has 59" in err


def test_a_network_is_loaded_by_its_name_and_by_its_keys(file):
    image = picture("a.png")
    named = load(NAME, weights_file=file, device="cpu")
    assert named.inference.size == {"short": 520}
    small = ["inference.size={height:32,width:40}"]
    named = load(NAME, weights_file=file, overrides=small, device="cpu")
    assert named.inference.size == {"height": 32, "width": 40}
    told = load(file, overrides=small, device="cpu")
    assert (told(image).labels == named(image).labels).all()
    with pytest.raises(UserError, match="weights_file is for"):
        load(file, weights_file=file)


def test_a_network_is_built_with_published_weights_for_other_classes(file, caplog):
    state = torch.load(file, weights_only=True)
    with caplog.at_level("INFO", "segtrain"):
        model = build("fcn_torchvision", num_classes=5, weights=str(file),
                      backbone="resnet50.tv_in1k")  # fmt: skip
    assert "looks like torchvision FCN ResNet-50 for 21 classes" in caplog.text
    assert "trained anew" in caplog.text
    found = model.state_dict()
    assert found["head.classifier.weight"].shape[0] == 5
    assert torch.equal(found["backbone.body.conv1.weight"], state["backbone.conv1.weight"])


def check_of_one_that_is_done() -> None:
    zoo = {"zoo": "torchvision", "name": "fcn_resnet101", "system": "FCN", "protocol": "single",
           "published": {"miou": 63.7}, "unlike": []}  # fmt: skip
    write_results("checks/torchvision_fcn_resnet101", evaluation(), miou=0.6365, zoo=zoo,
                  experiment="torchvision/fcn_resnet101")  # fmt: skip


def test_checks_go_on_after_what_fails_and_repeat_nothing(segtrain, monkeypatch):
    started = []

    def fail(arguments, log):
        started.append(arguments[3:])
        return Outcome(code=2, signal=None)

    monkeypatch.setattr(reproduce, "run_process", fail)
    check_of_one_that_is_done()
    code, out, err = segtrain("zoo", "check=[torchvision/fcn_*,deeplabv3_resnet50]",
                              "folder=checks", "output=checked.md", *SMALL)  # fmt: skip
    assert code == 1
    assert "2 of 3 failed: torchvision_fcn_resnet50 (exit code 2)" in err
    for part in ("63.70", "63.65", "0.05", "torchvision_fcn_resnet101", "done"):
        assert part in out
    first, second = started
    assert first == ["evaluate", "weights=torchvision/fcn_resnet50", *SMALL,
                     "hydra.run.dir=checks/torchvision_fcn_resnet50"]  # fmt: skip
    assert second[1] == "weights=torchvision/deeplabv3_resnet50"
    assert "| 63.70 | 63.65 | −0.05 |" in Path("checked.md").read_text()
    (record,) = json.loads(Path("checks/zoo.json").read_text())
    assert (record["metric"], record["published"]) == ("mIoU", 63.7)
    code, _, err = segtrain("zoo", "resume=checks")
    assert (code, len(started)) == (1, 4)


@pytest.mark.slow
def test_checks_in_processes_of_their_own(segtrain, tmp_path):
    cache = tmp_path / "torch/hub/checkpoints"
    cache.mkdir(parents=True)
    (cache / find(NAME).address.rpartition("/")[2]).write_bytes(b"none")
    check_of_one_that_is_done()
    code, _, err = segtrain("zoo", "check=torchvision/fcn_*", "folder=checks", *SMALL)
    assert code == 1
    assert "1 of 2 failed" in err
    log = Path("checks/torchvision_fcn_resnet50.log").read_text()
    assert "is not the file of torchvision/fcn_resnet50: wrong sha256 hash" in log


def test_a_data_set_that_is_not_here_is_named_with_its_command(segtrain, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_DATA", "elsewhere")
    code, out, _ = segtrain("reproduce", "evaluations=[torchvision/fcn_*]")
    assert code == 0
    assert "left, needs segtrain prepare dataset=cocovoc" in out
    code, out, _ = segtrain("plan", "evaluations=[torchvision/fcn_*]", "output=plan.json")
    assert code == 0
    plan = json.loads(Path("plan.json").read_text())
    assert {row["remedy"] for row in plan["evaluations"]} == {"segtrain prepare dataset=cocovoc"}
    assert [row["published"] for row in plan["evaluations"]] == [60.5, 63.7]
    assert plan["totals"] == {"evaluations": "2, 0.36 GB to fetch"}
    assert "trainings" not in plan


def test_the_table_tells_evaluations_from_trainings(segtrain):
    zoo = {"zoo": "mmseg", "name": "pspnet", "system": "PSPNet", "protocol": "single",
           "published": {"miou": 78.52}, "unlike": []}  # fmt: skip
    write_results("outputs/own", miou=0.83, experiment="pspnet_voc", split="val")
    write_results("outputs/theirs", evaluation(), miou=0.785, zoo=zoo, experiment="mmseg/pspnet")
    code, out, err = segtrain("table", "output=[table.md,table.csv]")
    assert code == 0, err
    page = Path("table.md").read_text()
    assert "<br>78.50, evaluated, not trained here" in page
    assert ("Evaluated, not trained here: 78.50, mmseg/pspnet, val, whole, stride 16; published "
            "78.52, difference −0.02.") in page  # fmt: skip
    assert "mmseg/pspnet" in Path("table.csv").read_text()
