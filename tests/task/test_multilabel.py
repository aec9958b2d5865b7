"""Classes that may overlap, from training to predictions and exports."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import only_run, results_of
from PIL import Image

import segtrain as package
from segtrain.cli.main import main
from segtrain.dataset.shapes_multilabel import draw_scene

TINY = (
    "dataset.source.num_images={train: 8, val: 4, test: 4}", "dataset.num_workers=0",
    "batch_size=2", "trainer.max_steps=2", "trainer.val_every_n_steps=1", "logger=null",
    "trainer.precision=32-true", "trainer.accelerator=cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("multilabel") / "run"
    assert main(["experiment=multilabel_shapes", *TINY, f"hydra.run.dir={folder}"]) == 0
    return folder


@pytest.fixture
def trained(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return run


def test_thresholds_of_validation_go_along(trained, segtrain, tmp_path):
    results = results_of(trained)
    thresholds = results["protocol"]["thresholds"]
    assert list(results["metrics"]["per_class_threshold"].values()) == thresholds
    assert results["task"] == "multilabel"
    assert (trained / "report.html").is_file()
    checkpoint = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["segtrain"]["config"]["inference"]["thresholds"] == thresholds

    code, _, err = segtrain("evaluate", f"run={trained}", "trainer.accelerator=cpu",
                            "trainer.precision=32-true")  # fmt: skip
    assert code == 0, err
    again = results_of(only_run("outputs/evaluate/*"))
    assert again["metrics"] == results["metrics"]
    code, _, err = segtrain("evaluate", f"run={trained}", "trainer.accelerator=cpu",
                            "inference=multilabel", "inference.flip=true", "report=null",
                            "hydra.run.dir=flipped")  # fmt: skip
    assert code == 0, err
    assert results_of(Path("flipped"))["protocol"]["thresholds"] == thresholds

    image, _ = draw_scene(np.random.default_rng(0), 40, 56)
    Image.fromarray(image).save(tmp_path / "a.png")
    code, _, err = segtrain("predict", f"run={trained}", "input=a.png", "output=found",
                            "precision=32-true")  # fmt: skip
    assert code == 0, err
    found = package.load(trained)(image)
    assert found.masks.shape == (2, 40, 56)
    assert found.masks.dtype == bool
    expected = found.probabilities >= np.float32(thresholds)[:, None, None]
    assert np.array_equal(found.masks, expected)
    for name in ("object", "shadow"):
        mask = np.asarray(Image.open(tmp_path / "found" / f"a_{name}_mask.png"))
        assert np.array_equal(mask, found.mask(name) * 255)
    said = json.loads((tmp_path / "found" / "a.json").read_text())
    assert said["protocol"]["thresholds"] == thresholds


def test_a_large_picture_is_decided_window_by_window_alike(trained):
    image, _ = draw_scene(np.random.default_rng(1), 48, 64)
    whole, parted = package.load(trained), package.load(trained, max_pixels=1000)
    assert (whole(image).masks == parted(image).masks).mean() > 0.999


@pytest.mark.parametrize("returns", ["logits", pytest.param("labels", marks=pytest.mark.slow)])
def test_exported(trained, segtrain, returns):
    onnxruntime = pytest.importorskip("onnxruntime")
    code, _, err = segtrain("export", f"run={trained}", "format=onnx", "output=model.onnx",
                            f"returns={returns}", "size=[64,64]")  # fmt: skip
    assert code == 0, err
    session = onnxruntime.InferenceSession("model.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    thresholds = json.loads(metadata["inference"])["thresholds"]
    assert metadata["task"] == "multilabel"
    assert thresholds == results_of(trained)["protocol"]["thresholds"]
    image, _ = draw_scene(np.random.default_rng(2), 64, 64)
    (found,) = session.run(None, {"image": image.transpose(2, 0, 1)[None]})
    if returns == "logits":
        found = 1 / (1 + np.exp(-found)) >= np.array(thresholds)[:, None, None]
    assert (found[0].astype(bool) == package.load(trained)(image).masks).mean() > 0.999


def test_a_label_map_is_refused(segtrain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = segtrain(
        "experiment=unet_shapes", "loss=multilabel", "inference=multilabel", *TINY
    )
    assert code == 2
    assert "dataset=shapes has classes that do not overlap" in err


def test_data_of_ones_own(segtrain, tmp_path, monkeypatch, own_cache):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for number in range(6):
        image, masks = draw_scene(np.random.default_rng(number), 40, 40)
        for name, mask in {**{f"masks/{k}": m for k, m in masks.items()}, "images": image}.items():
            Path("set", name).mkdir(parents=True, exist_ok=True)
            pixels = mask * np.uint8(255) if mask.dtype == bool else mask
            Image.fromarray(pixels).save(f"set/{name}/{number}.png")
        split = "val" if number > 3 else "train"
        with Path("set", f"{split}.txt").open("a") as file:
            file.write(f"{number}\n")
    code, out, err = segtrain("train", "data=set", "multilabel=true", "steps=1", "batch=2",
                              "workers=0", "report=null")  # fmt: skip
    assert code == 0, err
    assert "inference=multilabel loss=multilabel" in out
    results = results_of(only_run("outputs/own/*"))
    assert list(results["metrics"]["per_class_iou"]) == ["object", "shadow"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["multilabel_shapes", "binary_shapes"])
def test_learns(name, segtrain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = segtrain(f"experiment={name}", "trainer.accelerator=cpu")
    assert code == 0, err
    found = results_of(only_run(f"outputs/{name}/*"))["metrics"]["per_class_iou"]
    assert min(found.values()) >= 0.7, found
