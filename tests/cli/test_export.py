"""`segtrain export`: what it writes, what it says of it, and what it refuses."""

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from predicting import DETECTOR, PANOPTIC, PROPOSALS, picture, write_run

import segtrain as package
from segtrain.cli import export
from segtrain.export import onnx
from segtrain.export.files import in_one_step

SMALL = "compare_sizes=[[33,49],[40,70]]"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "semantic"
    return write_run(folder, "architecture=parsenet", "dataset=shapes")


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "detector", *DETECTOR)


def report() -> dict:
    (path,) = Path("outputs/export").glob("*/export.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("format_name", "name"),
    [("onnx", "model.onnx"), ("torch_export", "model.pt2"), ("safetensors", "model")],
)
def test_formats(segtrain, run, format_name, name):
    code, out, err = segtrain("export", f"run={run}", f"format={format_name}", SMALL)
    assert code == 0, err
    (folder,) = Path("outputs/export").iterdir()
    expected = {"config.yaml", "run.log", "export.json", name}
    assert {path.name for path in folder.iterdir()} == expected
    content = report()
    assert content["output"] == str(folder.resolve() / name)
    assert content["bytes"] > 10_000
    assert content["checkpoint"].endswith("best.ckpt")
    assert [tuple(entry["size"]) for entry in content["comparisons"]] == [(33, 49), (40, 70)]
    for entry in content["comparisons"]:
        assert entry["pictures"] == 8  # generated ones, and some of the run's own
        assert entry["label_agreement"] >= 0.999
        assert entry["largest_difference"] <= 1e-4
    assert "same class" in out
    assert str(folder / name) in out.replace("\n", "")


def test_folder_gives_what_the_run_gives(segtrain, run):
    code, _, err = segtrain("export", f"run={run}", "format=safetensors", "output=out/net", SMALL)
    assert code == 0, err
    content = json.loads(Path("out/net/config.json").read_text())
    assert content["task"] == "semantic"
    assert content["experiment"] == "test"
    assert content["segtrain"] == package.__version__
    assert content["architecture"]["backbone"]["weights"] == "none"
    assert content["labels"]["raw_to_train"]["0"] == 0
    path = picture("dog.png")
    expected, got = (package.load(source, device="cpu")(path) for source in (run, "out/net"))
    assert np.array_equal(got.labels, expected.labels)
    assert list(Path("out").iterdir()) == [Path("out/net")]
    code, _, err = segtrain("export", f"run={run}", "format=safetensors", "output=out/net", SMALL)
    assert code == 2
    assert "not empty" in err


def test_detectors_as_folders(segtrain, detector):
    code, _, err = segtrain("export", f"run={detector}", "format=safetensors", "output=net", SMALL)
    assert code == 0, err
    assert [entry["agreement"] for entry in report()["comparisons"]] == [1.0, 1.0]
    path = picture("dog.png")
    expected, got = (package.load(source, device="cpu")(path) for source in (detector, "net"))
    assert np.array_equal(got.boxes, expected.boxes)


def test_detectors_as_graphs_of_one_size(segtrain, detector):
    code, _, err = segtrain("export", f"run={detector}", "format=torch_export")
    assert code == 2
    assert "size=[height,width]" in err
    code, out, err = segtrain("export", f"run={detector}", "format=torch_export", "size=[64,96]")
    assert code == 0, err
    assert "same objects" in out
    (entry,) = report()["comparisons"]
    assert entry["size"] == [64, 96]
    assert entry["agreement"] >= 0.99


def test_queries_as_folders_and_graphs(segtrain, tmp_path):
    run = write_run(tmp_path / "panoptic", *PANOPTIC)
    path = picture("dog.png")
    expected = package.load(run, device="cpu")(path)
    assert len(expected.segments) > 1
    for format_name in ("safetensors", "hub"):
        output = f"output={format_name}"
        code, _, err = segtrain("export", f"run={run}", f"format={format_name}", output, SMALL)
        assert code == 0, err
        got = package.load(format_name, device="cpu")(path)
        assert np.array_equal(got.map, expected.map)
        assert got.label_set == expected.label_set
    assert ".segments" in Path("hub/README.md").read_text()
    code, out, err = segtrain("export", f"run={run}", "format=torch_export", "output=net.pt2",
                              "size=[48,64]")  # fmt: skip
    assert code == 0, err
    assert "same mask" in out
    logits = torch.export.load("net.pt2").module()(torch.zeros(1, 3, 48, 64, dtype=torch.uint8))
    assert [tuple(part.shape) for part in logits] == [(1, 7, 9), (1, 7, 48, 64)]


def test_proposals_as_folders_only(segtrain, tmp_path):
    run = write_run(tmp_path / "proposals", *PROPOSALS)
    code, _, err = segtrain("export", f"run={run}", "format=safetensors")
    assert code == 0, err
    assert report()["comparisons"] == []
    code, _, err = segtrain("export", f"run={run}", "format=onnx", "size=[64,96]")
    assert code == 2
    assert "format=safetensors" in err


def test_pictures_of_the_user_and_labels(segtrain, run):
    for number in range(6):
        picture(f"photos/{number}.png", seed=number)
    arguments = ("export", f"checkpoint={run}/checkpoints/best.ckpt", "format=torch_export",
                 "returns=labels", SMALL)  # fmt: skip
    code, _, err = segtrain(*arguments, "compare_on=photos", "output=net.pt2")
    assert code == 0, err
    for entry in report()["comparisons"]:
        assert entry["pictures"] == 4
        assert entry["largest_difference"] is None
    labels = torch.export.load("net.pt2").module()(torch.zeros(2, 3, 50, 60, dtype=torch.uint8))
    assert labels.shape == (2, 50, 60)
    assert labels.dtype == torch.uint8


def test_without_the_training_data(segtrain, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_DATA", str(tmp_path / "nothing"))
    run = write_run(tmp_path / "voc", "architecture=parsenet", "dataset=voc")
    code, out, err = segtrain("export", f"run={run}", "format=torch_export", SMALL)
    assert code == 0, err
    assert "generated pictures alone" in out
    assert report()["comparisons"][0]["pictures"] == 4


def test_a_network_that_differs_is_not_kept(segtrain, run, monkeypatch):
    load = export.load_program
    monkeypatch.setattr(export, "load_program", lambda path: lambda image: -load(path)(image))
    code, out, err = segtrain("export", f"run={run}", "format=torch_export", "output=n.pt2", SMALL)
    assert code == 1
    assert "same class" in out
    assert "n.pt2 was not written" in err
    assert not list(Path().glob("n*"))
    assert report()["comparisons"][0]["label_agreement"] < 0.999


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["format=tflite"], "onnx, torch_export, safetensors"),
        (["returns=scores"], "returns=scores: expected one of logits, labels"),
        (["format=torch_export", "compare_on=nowhere.jpg"], "nowhere.jpg"),
        (["format=torch_export", "compare_on=empty"], "no picture"),
    ],
)
def test_refusals(segtrain, run, arguments, message):
    Path("empty").mkdir()
    code, _, err = segtrain("export", f"run={run}", *arguments)
    assert code == 2
    assert message in err
    assert not list(Path("outputs").rglob("model*"))


def test_missing_packages_are_named(segtrain, run, monkeypatch):
    monkeypatch.setattr(onnx, "PACKAGES", ("onnx", "onnx_not_there"))
    code, _, err = segtrain("export", f"run={run}")
    assert code == 2
    assert "pip install onnx_not_there" in err


def test_what_is_there_stays_until_the_new_file_is_whole(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("old")
    with suppress(RuntimeError), in_one_step(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with in_one_step(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
