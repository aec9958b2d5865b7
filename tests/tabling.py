"""Run folders as trainings and evaluations leave them, without any training."""

import copy
import json
from pathlib import Path

import yaml

RESULTS = {
    "schema": 1, "experiment": "deeplabv3_voc", "task": "semantic", "architecture": "DeepLabv3",
    "backbone": "resnet101", "dataset": "voc", "split": "val",
    "protocol": {"inference": "whole", "scales": [1.0], "flip": False, "crf": False,
                 "output_stride": 16},
    "metrics": {"miou": 0.77, "pixel_accuracy": 0.95, "per_class_iou": {"cat": 0.9, "dog": None}},
    "published": None, "images": 1449, "seed": 1, "global_step": 30000, "epochs": 45.0,
    "total_batch_size": 16, "devices": 4, "precision": "bf16-mixed",
    "timing": {"train_seconds": 36000.0, "train_images_per_second": 13.3,
               "data_wait_fraction": 0.01, "evaluate_seconds": 60.0},
    "peak_memory_bytes": {"host": 4_000_000_000, "device": 30_000_000_000},
    "parameters": 58_040_661, "checkpoint": "best.ckpt", "config_sha256": "c",
    "finished": "2026-01-01T00:00:00+00:00",
}  # fmt: skip


def write_results(folder, config: dict | None = None, miou: float = 0.77, **changed) -> Path:
    """`results.json`, each of another checkpoint, and `config.yaml` beside it."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    results = copy.deepcopy(RESULTS) | {
        "checkpoint": str(folder / "checkpoints/best.ckpt"), "checkpoint_sha256": str(folder),
    }  # fmt: skip
    results["metrics"]["miou"] = miou
    for key, value in changed.items():
        results[key] = results.get(key, {}) | value if isinstance(value, dict) else value
    (folder / "results.json").write_text(json.dumps(results))
    if config is not None:
        seed = {"seed": results["seed"]} if "optimizer" in config else {}
        (folder / "config.yaml").write_text(yaml.safe_dump(config | seed))
    return folder


def training(**changed) -> dict:
    """A training's configuration, as far as tables look at it."""
    return {"experiment": "deeplabv3_voc", "optimizer": {"lr": 0.01}, "trainer": {},
            "weights": None, "starts_from": None} | changed  # fmt: skip


def evaluation(**changed) -> dict:
    """An evaluation's configuration."""
    return {"run": None, "checkpoint": None, "split": None, "ensemble": [], "trainer": {}} | changed
