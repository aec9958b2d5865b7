"""The CamVid recipe to its end: minutes to each mIoU on the way."""

import os
from functools import partial
from pathlib import Path

from benchmarks.gpu import probes
from benchmarks.gpu.cell import Cell, Figures, Setting, Skipped
from benchmarks.gpu.commands import TINY, config_of, data_or_skip, start

GOALS = (55, 60, 65, 70)  # % of mIoU on the validation split
WEIGHTS = "weights"  # folder beside the data sets
# A ResNet-50 that ImageNet has taught, in the place of the narrow untrained one.
LARGE = "architecture=deeplabv3_torchvision"
LARGE_LR = "optimizer.lr=3.0e-4"


def cells(setting: Setting) -> list[Cell]:
    """With weights where they were carried along, and from scratch."""
    return [
        Cell("ResNet-50, pretrained", 150, partial(train, True)),
        Cell("narrow ResNet, from scratch", 120, partial(train, False)),
    ]


def train(pretrained: bool, setting: Setting) -> Figures:
    """The recipe, validated often; `minutes` count from the first step, validations included."""
    tiny = setting.tiny
    chosen = ["experiment=quickstart" if tiny else "experiment=deeplabv3_camvid", "report=null"]
    values = {}
    if pretrained:
        chosen.append(LARGE_LR)
        own = [LARGE, f"architecture.backbone.weights='{weights()}'", "trainer.max_steps=1"]
        values["architecture"] = config_of(setting, "train", own)["architecture"]
    if tiny:
        chosen += TINY
    else:
        data_or_skip(setting, chosen)
        chosen += ["trainer.val_every_n_steps=100", "logger=csv"]
    file = setting.scratch / f"milestones-{pretrained}.json"
    probe = f"+callback.probe={{_target_: benchmarks.gpu.probes.Milestones, file: {file}}}"
    probes.Milestones.tell = lambda found: setting.report(summary(found))
    run_dir = setting.scratch / f"camvid-{pretrained}"
    results = start(setting, "train", [*chosen, probe], run_dir, values)
    timing = results["timing"]
    return {
        **summary(probes.read(file)),
        "test mIoU %": 100 * results["metrics"]["miou"],
        "images/s": timing["train_images_per_second"],
        "training s": timing["train_seconds"],
        "data_wait_fraction": timing["data_wait_fraction"],
        "M parameters": results["parameters"] / 1e6,
    }


def summary(found: dict) -> Figures:
    """Minutes to each goal, None where it was not reached, and the best so far."""
    reached = found["validations"]  # (minutes, mIoU) each
    figures: Figures = {
        f"min to {goal}": next((m for m, miou in reached if 100 * miou >= goal), None)
        for goal in GOALS
    }
    best = max((miou for _, miou in reached), default=None)
    return figures | {"best val mIoU %": None if best is None else 100 * best}


def weights() -> Path:
    """The file of the weights.

    Raises:
        Skipped: there is none.
    """
    folder = Path(os.environ.get("SEGTRAIN_DATA", "data")) / WEIGHTS
    files = sorted(folder.glob("resnet50*.pth")) + sorted(folder.glob("resnet50*.safetensors"))
    if not files:
        raise Skipped(f"no weights/resnet50*.pth or .safetensors in {folder.parent.name}/")
    return files[0]
