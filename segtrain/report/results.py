"""`results.json`, the machine-readable outcome of a run, and the table printed at its end."""

import hashlib
import json
import resource
import subprocess
import sys
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml
from rich.table import Table

from segtrain.figures import if_known
from segtrain.text import console
from segtrain.writing import write_text

SCHEMA = 1
PACKAGES = (
    "segtrain", "torch", "torchvision", "pytorch-lightning", "hydra-core", "torchmetrics",
    "albumentations", "timm", "numpy", "opencv-python-headless",
)  # fmt: skip

TITLES = {  # of the table printed at the end; others as `results.json` has them
    "miou": "mIoU",
    "iou": "IoU",
    "dice": "Dice",
    "precision": "precision",
    "recall": "recall",
    "map": "mAP",
    "average_precision": "AP",
    "threshold": "threshold",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "fwiou": "frequency-weighted IoU",
    "boundary_iou": "boundary IoU",
    "miou_i": "mIoU by image",
    "miou_c": "mIoU by class and image",
    "miou_i_worst": "mIoU of the worst tenth of images",
    "calibration_error": "calibration error",
    "ap_small": "AP small",
    "ap_medium": "AP medium",
    "ap_large": "AP large",
    "ar_small": "AR small",
    "ar_medium": "AR medium",
    "ar_large": "AR large",
}
# Figures of `extra_metrics` in the order in which they are shown.
EXTRA = ("dice", "boundary_iou", "miou_i", "miou_c", "miou_i_worst", "calibration_error")
PANOPTIC = ("sq", "rq", "pq_things", "pq_stuff")  # beside PQ, in that order


def environment() -> dict:
    """What the numbers were made with: versions, code revision, memory and the time.

    What cannot be found out is None, versions are left out.
    """
    return {
        "peak_memory_bytes": {
            "host": if_known("the peak memory of the host", _host_peak),
            "device": if_known("the peak memory of the device", _device_peak),
        },
        "git_revision": if_known("the code revision", _git_revision),
        "versions": {"python": sys.version.split()[0], **_versions()},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def seconds_to(results: dict, score: float) -> float | None:
    """Seconds of training after which a validation first scored so much, validations left out.

    Args:
        results: content of `results.json`; of older runs it does not tell.
        score: of the task's headline metric, 0..1.
    """
    made = results["timing"].get("validations") or ()
    return next((one["seconds"] for one in made if one["score"] >= score), None)


def config_sha256(config: dict) -> str:
    """Hash of what decides the numbers in a resolved configuration, in any order of its keys."""
    idle = ("resume", "report", "extra_metrics")
    lasting = {key: value for key, value in config.items() if key not in idle}
    return hashlib.sha256(yaml.safe_dump(lasting, sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Hash of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_results(path: Path, results: dict) -> None:
    """Writes `results.json`, or a later version of it, in one step."""
    write_text(path, json.dumps({"schema": SCHEMA, **results}, indent=2, allow_nan=False) + "\n")


def title_of(metric: str) -> str:
    """What people call an entry of `metrics`."""
    if metric.startswith("box_"):
        return f"{title_of(metric.removeprefix('box_'))} of boxes"
    for part in ("things", "stuff"):
        if metric.endswith(f"_{part}"):
            return f"{title_of(metric.removesuffix(f'_{part}'))} of {part}"
    return TITLES.get(metric, metric.upper().replace("_", " "))


def print_scores(metrics: dict, title: str) -> None:
    """Every class's scores and the summary, in percent, from the `metrics` of `results.json`."""
    named = {name: values for name, values in metrics.items() if isinstance(values, dict)}
    per_class = list(named.values())
    classes = list(per_class[0]) if per_class else []
    has_boxes = any(name.startswith("box_") for name in metrics)
    columns = [title_of(name.removeprefix("per_class_")) for name in named] or ["IoU"]
    if has_boxes:
        columns = ["masks", "boxes"]
    table = Table(title=title, title_justify="left")
    table.add_column("class" if classes else "")
    for column in columns:
        table.add_column(f"{column} %", justify="right")
    for label in classes:
        table.add_row(label, *(_percent(values[label], "absent") for values in per_class))
    table.add_section()
    for name, value in metrics.items():
        if isinstance(value, dict) or name.startswith("box_"):
            continue
        values = [value, metrics[f"box_{name}"]] if has_boxes else [value]
        shares = [_percent(value, "-") for value in values]
        table.add_row(title_of(name), *shares, style="bold")
    console().print(table)
    absent = [n for n in classes if per_class[0][n] is None]
    if absent:
        console().print(f"absent, left out of the means: {', '.join(absent)}")


def _percent(value: float | None, missing: str) -> str:
    return missing if value is None else f"{100 * value:.2f}"


def _host_peak() -> int:
    """Peak resident bytes of this process plus that of its largest finished child."""
    kilobytes = sum(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return kilobytes * (1 if sys.platform == "darwin" else 1024)


def _device_peak() -> int | None:
    import torch  # titles of scores are wanted without it

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def _git_revision() -> str | None:
    """Revision of the checkout that this package runs from, with `-dirty` if it was changed."""
    own = Path(__file__)
    try:
        # An installed copy may lie inside somebody else's repository, which does not track it.
        _git(own.parent, "ls-files", "--error-unmatch", own.name)
        return _git(own.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def _versions() -> dict[str, str]:
    found = {package: if_known(f"the version of {package}", partial(_version, package))
             for package in PACKAGES}  # fmt: skip
    return {package: number for package, number in found.items() if number is not None}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
