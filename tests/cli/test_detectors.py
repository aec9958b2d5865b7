"""Whole runs of networks that find instances, on the embedded set."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, TINY_INSTANCES, only_run, results_of, small_network
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segtrain.headlines import TITLES

TESTS = Path(__file__).parents[1]


def tiny(experiment: str) -> list[str]:
    """A run of seconds."""
    sides = ["inference.short_side=64"] if "fpn" in experiment else ["inference.short_sides=[64]"]
    return [
        f"experiment={experiment}",
        *(
            o
            for o in TINY
            if not o.startswith(("experiment", "architecture")) and "size=[" not in o
        ),
        *TINY_INSTANCES,
        *small_network(f"experiment={experiment}"),
        *sides,
        "inference.long_side=64",
        "callback=[images,ema]",
    ]


@pytest.mark.parametrize(
    ("experiment", "task", "headline"),
    [("mask_rcnn_shapes", "instance", "ap"), ("fpn_shapes", "proposal", "ar1000")],
)
def test_run_evaluate_and_tensorboard(segtrain, experiment, task, headline):
    code, out, err = segtrain(*tiny(experiment))
    assert code == 0, err
    run = only_run(f"outputs/{experiment}/*")
    results = results_of(run)
    assert results["task"] == task
    assert results["dataset"] == "shapes_instances"
    assert results["images"] == 7
    assert results["protocol"]["scales"] == [64]
    metrics = results["metrics"]
    assert 0 <= metrics[headline] <= 1
    if task == "instance":
        assert list(metrics["per_class_ap"]) == [
            "circle", "square", "triangle", "star", "ring", "cross", "stick",
        ]  # fmt: skip
        assert {"ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100",
                "ar_small", "ar_medium", "ar_large", "box_ap"} <= set(metrics)  # fmt: skip
    else:
        assert {"ar10", "ar100", "ar1000", "ar_small", "ar_medium", "ar_large"} <= set(metrics)
        assert "ap" not in metrics
    assert headline.upper() in out
    assert f"val {TITLES[headline]} " in (run / "run.log").read_text()
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    assert {f"val/{headline}", f"test/{headline}", "train/loss_mask"} <= set(tags["scalars"])
    assert sum(tag.startswith("val_images/") for tag in tags["images"]) == 7
    assert ("val/precision_recall" in tags["images"]) == (task == "instance")
    assert ("val/per_class/text_summary" in tags["tensors"]) == (task == "instance")
    assert segtrain("evaluate", f"run={run}", "trainer.accelerator=cpu")[0] == 0
    again = results_of(only_run("outputs/evaluate/*"))
    assert again["metrics"] == metrics


def test_test_time_augmentation_is_an_option_of_evaluate(segtrain):
    assert segtrain(*tiny("mask_rcnn_shapes"))[0] == 0
    run = only_run("outputs/mask_rcnn_shapes/*")
    code, _, err = segtrain(
        "evaluate", f"run={run}", "trainer.accelerator=cpu", "inference=detect",
        "inference.short_sides=[48,64,80]", "inference.long_side=100", "inference.flip=true",
        "inference.box_voting=0.8", "inference.mask_voting=0.5",
    )  # fmt: skip
    assert code == 0, err
    protocol = results_of(only_run("outputs/evaluate/*"))["protocol"]
    assert protocol["scales"] == [48, 64, 80]
    assert protocol["flip"]
    assert protocol["mask_voting"] == 0.5


def test_masks_of_classes_are_refused(segtrain):
    code, _, err = segtrain("architecture=mask_rcnn", "dataset=shapes", "trainer.max_steps=1")
    assert code == 2
    assert "shapes_instances" in err


@pytest.mark.parametrize("other", ["inference=propose", "inference=whole", "loss=proposals"])
def test_parts_of_different_tasks_are_refused(segtrain, other):
    code, _, err = segtrain("architecture=mask_rcnn", "dataset=shapes_instances", other,
                            "trainer.max_steps=1")  # fmt: skip
    assert code == 2
    assert "architecture is for 'instance'" in err


def test_two_splits_that_are_evaluated_together(segtrain):
    """Every image of both counts."""
    code, _, err = segtrain(*tiny("mask_rcnn_shapes"), "dataset.splits.test=val+test")
    assert code == 0, err
    assert results_of(only_run("outputs/mask_rcnn_shapes/*"))["images"] == 14


def test_early_stopping_watches_the_headline(segtrain):
    code, _, err = segtrain(*tiny("mask_rcnn_shapes"), "callback=[ema,early_stopping]")
    assert code == 0, err


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["mask_rcnn_shapes", "fpn_shapes"])
def test_compiled_parts_train_and_evaluate(segtrain, experiment):
    code, _, err = segtrain(*tiny(experiment), "trainer.compile=true", "trainer.max_steps=2",
                            "trainer.val_every_n_steps=2")  # fmt: skip
    assert code == 0, err


def process(*arguments: str, launcher: tuple[str, ...]) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *launcher, *arguments],
        env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip


@pytest.mark.parametrize(
    "experiment", ["mask_rcnn_shapes", pytest.param("fpn_shapes", marks=pytest.mark.slow)]
)
def test_scores_are_identical_on_1_and_2_processes(segtrain, experiment):
    """To the last digit, on every process, with a share of images that is not even."""
    assert segtrain(*tiny(experiment), "hydra.run.dir=outputs/run")[0] == 0
    scores = []
    for count in (1, 2):
        done = process(
            "outputs/run/checkpoints/best.ckpt", f"scores{count}",
            launcher=("-m", "torch.distributed.run", f"--nproc-per-node={count}",
                      str(TESTS / "evaluate_scores.py")),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        scores += [json.loads(Path(f"scores{count}.{rank}").read_text()) for rank in range(count)]
        of_images = Path("image_scores.csv").read_text()
        assert of_images == Path("outputs/run/image_scores.csv").read_text()
    assert len(of_images.splitlines()) == 8
    assert scores[0]
    assert scores[0] == scores[1] == scores[2]


@pytest.mark.slow
def test_training_on_two_processes(segtrain):
    """One of them may have no object in a step: no parameter may wait for a gradient."""
    done = process(
        *tiny("panet_shapes"), "trainer=ddp_cpu", "trainer.max_steps=2",
        "trainer.val_every_n_steps=2", "batch_size=2", "hydra.run.dir=outputs/run",
        launcher=("-m", "segtrain"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert results_of(Path("outputs/run"))["devices"] == 2


def test_kill_and_resume_equals_an_uninterrupted_run(segtrain):
    """Anchors and regions are drawn as they would have been."""
    settings = [*tiny("mask_rcnn_shapes"), "trainer.deterministic=true"]
    assert segtrain(*settings, "hydra.run.dir=outputs/whole")[0] == 0
    strike = "+callback.fault={_target_: faults.Strike, step: 2, number: 15, rank: 0}"
    assert segtrain(*settings, strike, "hydra.run.dir=outputs/killed")[0] == 143
    assert segtrain("resume=outputs/killed", "trust_code=true")[0] == 0
    first, second = (
        torch.load(f"outputs/{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in ("whole", "killed")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def write_hard_coco(root: Path) -> None:
    """COCO of images without objects, with 300, with single pixels, only crowds, and long ones."""
    rng = np.random.default_rng(0)
    many = [
        [int(x), int(y), int(x) + 4, int(y), int(x) + 4, int(y) + 4, int(x), int(y) + 4]
        for x, y in rng.integers(0, 60, (300, 2))
    ]
    pixels = [[x, y, x + 1, y, x + 1, y + 1, x, y + 1] for x, y in ((0, 0), (63, 63), (30, 20))]
    long = [[2, 1, 180, 1, 180, 5, 2, 5]]
    scenes = {  # width, height, polygons, crowd
        1: (64, 64, [], 0), 2: (64, 64, many, 0), 3: (64, 64, pixels, 0),
        4: (64, 64, [[5, 5, 40, 5, 40, 40]], 1), 5: (200, 6, long, 0),
        6: (6, 200, [[1, 2, 5, 2, 5, 180, 1, 180]], 0),
    }  # fmt: skip
    images, annotations = [], []
    for split in ("train2017", "val2017"):
        (root / split).mkdir(parents=True)
    for number, (width, height, polygons, crowd) in scenes.items():
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        for split in ("train2017", "val2017"):
            Image.fromarray(pixels).save(root / split / f"{number:012}.jpg")
        images.append({"id": number, "file_name": f"{number:012}.jpg", "height": height,
                       "width": width})  # fmt: skip
        for polygon in polygons:
            x, y = polygon[::2], polygon[1::2]
            segmentation = [polygon]
            if crowd:
                segmentation = {"size": [height, width], "counts": [500, 900, 64 * 64 - 1400]}
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": 1 + number,
                "segmentation": segmentation, "iscrowd": crowd, "area": 16.0,
                "bbox": [min(x), min(y), max(x) - min(x), max(y) - min(y)],
            })  # fmt: skip
    (root / "annotations").mkdir()
    content = json.dumps({"images": images, "annotations": annotations, "categories": []})
    for split in ("train2017", "val2017"):
        (root / "annotations" / f"instances_{split}.json").write_text(content)


@pytest.mark.parametrize("experiment", ["mask_rcnn_shapes", "panet_shapes", "fpn_shapes"])
def test_hard_images_train_and_evaluate(segtrain, tmp_path, monkeypatch, experiment):
    write_hard_coco(tmp_path / "coco")
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))
    overrides = [o for o in tiny(experiment) if "dataset.source" not in o]
    code, _, err = segtrain(
        *overrides, "dataset=coco2017", f"dataset.source.root={tmp_path / 'coco'}",
        "dataset.source.filter_empty=[]", "dataset.transform.short_side=[16, 64]",
        "dataset.transform.long_side=128", "batch_size=6",
    )  # fmt: skip
    assert code == 0, err
    results = results_of(only_run(f"outputs/{experiment}/*"))
    assert results["images"] == 6
    metrics = results["metrics"]
    assert metrics["ap" if "ap" in metrics else "ar1000"] is not None
