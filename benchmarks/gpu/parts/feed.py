"""What the loader delivers from each data set's preset here, against what a step eats."""

from functools import partial

import torch

from benchmarks.gpu.cell import Cell, Figures, Setting
from benchmarks.gpu.commands import TINY, config_of, data_or_skip, rows
from benchmarks.gpu.machine import cores
from benchmarks.gpu.timing import seconds_per_call
from segtrain.benchmark.training import training_speed

WAYS = {
    "segtrain": "images/s", "segtrain, cached": "cached images/s",
    "segtrain, shards": "shards images/s", "torchvision references": "torchvision images/s",
}  # fmt: skip
SETS = ("voc", "cityscapes", "coco2017", "camvid", "context59", "cocostuff", "cocovoc",
        "cityscapes_instances")  # fmt: skip
# VOC's preset on generated JPEGs, for machines to which no data was carried.
GENERATED = ("dataset=shapes", "dataset.transform.crop_size=[512,512]",
             "dataset.transform.scale_range=[0.5,2.0]", "dataset.transform.brightness=0.25",
             "dataset.transform.contrast=0.25", "dataset.transform.saturation=0.25",
             "dataset.transform.hue=0.02")  # fmt: skip
TRAININGS = ("deeplabv3_voc", "deeplabv3_cityscapes", "mask_rcnn_coco2017", "deeplabv3_camvid")
MANY = 2000  # images, which are not written to a cache and shards for this
BATCH = 16, 3, 513, 513


def cells(setting: Setting) -> list[Cell]:
    """Loaders, then whole trainings."""
    if setting.tiny:
        return [
            Cell("generated", 1, partial(loader, GENERATED, None), "loader"),
            Cell("copy", 1, copy, "copy"),
            Cell("training quickstart", 1, partial(training, "quickstart"), "training"),
        ]
    return [
        Cell("generated", 15, partial(loader, GENERATED, None), "loader"),
        Cell("voc", 15, partial(loader, ("dataset=voc",), "voc"), "loader"),
        Cell("copy", 2, copy, "copy"),
        *(Cell(f"training {name}", 25, partial(training, name), "training") for name in TRAININGS),
        *(Cell(name, 15, partial(loader, (f"dataset={name}",), name), "loader")
          for name in SETS if name != "voc"),
    ]  # fmt: skip


def loader(overrides: tuple[str, ...], name: str | None, setting: Setting) -> Figures:
    """Images/s with a worker on each core, as read, cached, from shards, and torchvision's way."""
    given, ways = [*overrides], None
    if name is not None:
        split, count = data_or_skip(setting, given)
        given.append(f"dataset.splits.train={split}")
        if count > MANY:
            ways = ["segtrain"]
    workers = 1 if setting.tiny else cores()
    samples, rounds, batch = (4, 1, 2) if setting.tiny else (40 * workers, 2, 8)
    found = rows(
        setting,
        ["measure=loader", *given],
        {"samples": samples, "rounds": rounds, "num_workers": [workers], "batch_size": batch,
         "ways": ways},
    )  # fmt: skip
    figures: Figures = {"workers": workers}
    speeds = {row["way"]: row["samples/s"] for row in found}
    return figures | {title: speeds[way] for way, title in WAYS.items() if way in speeds}


def copy(setting: Setting) -> Figures:
    """Batches of pictures from the host to the device, from pinned memory and from any."""
    shape = (2, 3, 33, 33) if setting.tiny else BATCH
    device = torch.device(setting.device)
    figures: Figures = {"batch": "x".join(map(str, shape))}
    for name in ("pinned", "pageable"):
        if name == "pinned" and not setting.has_gpu:
            continue
        batch = torch.zeros(shape, dtype=torch.uint8)
        if name == "pinned":
            batch = batch.pin_memory()
        target = torch.empty_like(batch, device=device)
        call = partial(target.copy_, batch, non_blocking=True)
        seconds = seconds_per_call(call, 0 if setting.tiny else 0.3)
        figures |= {f"{name} GB/s": batch.numel() / seconds / 1e9,
                    f"{name} images/s": shape[0] / seconds}  # fmt: skip
    return figures


def training(experiment: str, setting: Setting) -> Figures:
    """A recipe's training with its loader, and the share of a step that waits for data."""
    chosen = [f"experiment={experiment}", "report=null"]
    chosen += TINY if setting.tiny else [f"dataset.splits.train={data_or_skip(setting, chosen)[0]}"]
    config = config_of(setting, "train", chosen)
    steps, warm_up = (1, 1) if setting.tiny else (20, 10)
    (row,) = training_speed(config, steps, warm_up, random_data=False)
    return {
        "batch": row["batch"],
        "images/s": row["images/s"],
        "ms": row["step ms"],
        "data wait ms": row["data wait ms"],
        "data_wait_fraction": row["data wait ms"] / row["step ms"],
        "copy ms": row["copy ms"],
    }
