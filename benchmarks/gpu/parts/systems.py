"""All eleven systems at their recipes' crop and batch on one card: do they fit, and how fast."""

import gc
from functools import partial

import torch

from benchmarks.gpu.cards import peak_of
from benchmarks.gpu.cell import Cell, Figures, Setting
from benchmarks.gpu.commands import config_of
from benchmarks.gpu.worker import MEMORY
from segtrain.benchmark.training import training_speed

# The recipe of each, and the same network on the embedded set for the tiny form.
RECIPES = {
    "DeepLabv3": ("deeplabv3_voc", "deeplabv3_shapes"),
    "DeepLabv3+": ("deeplabv3plus_voc", "deeplabv3plus_shapes"),
    "PSPNet": ("pspnet_cityscapes", "pspnet_shapes"),
    "Mask R-CNN": ("mask_rcnn_coco2016", "mask_rcnn_shapes"),
    "EncNet": ("encnet_context", "encnet_shapes"),
    "PANet": ("panet_coco2017", "panet_shapes"),
    "FPN proposals": ("fpn_coco", "fpn_shapes"),
    "DeepLabv2": ("deeplabv2_voc", "deeplabv2_shapes"),
    "ParseNet": ("parsenet_voc", "parsenet_shapes"),
    "FCN-8s": ("fcn8s_voc", "fcn8s_shapes"),
    "DeconvNet": ("deconvnet_voc", "deconvnet_shapes"),
}


def cells(setting: Setting) -> list[Cell]:
    """One for each system."""
    return [Cell(name, 20, partial(measure, *names)) for name, names in RECIPES.items()]


def measure(recipe: str, embedded: str, setting: Setting) -> Figures:
    """Images/s and memory of the recipe's batch, or of the largest half of it that fits."""
    experiment = embedded if setting.tiny else recipe
    config = config_of(setting, "train", [f"experiment={experiment}", "report=null"])
    config["dataset"]["num_workers"] = 0
    if setting.tiny:
        config["batch_size"] = 2
        transform = config["dataset"]["transform"]
        small = {"crop_size": [33, 33]} if "crop_size" in transform else {
            "short_side": [64, 64], "long_side": 64}  # fmt: skip
        transform |= small
    config["callback"] = {}  # averaged weights are no part of the network
    wanted = batch = config["batch_size"]
    while batch >= 1:
        config["batch_size"] = batch
        row = trial(config, *((1, 1) if setting.tiny else (10, 5)))
        if row is not None:
            break
        batch //= 2
    else:
        return {"recipe": experiment, "fits": False, "batch": 0}
    figures: Figures = {
        "recipe": experiment,
        "fits": batch == wanted,
        "batch": row["batch"],
        "precision": row["precision"],
        "images/s": row["images/s"],
        "ms": row["step ms"],
        "MB": row["peak memory MB"],
        "loss ms": row["loss ms"],
        "optimiser ms": row["optimiser ms"],
        "GFLOPs an image": row["GFLOPs an image"],
    }
    if setting.has_gpu and (peak := peak_of(torch.cuda.get_device_name())):
        figures["% of the bf16 peak"] = 1e14 * row["TFLOP/s of a process"] / peak
    return figures


def trial(config: dict, steps: int, warm_up: int) -> dict | None:
    """The row of `measure=training` on random images; None where memory does not suffice."""
    try:
        (row,) = training_speed(config, steps, warm_up, random_data=True)
        return row
    except (RuntimeError, MemoryError) as error:  # PyTorch's lack of memory is a RuntimeError
        text = f"{type(error).__name__}: {error}"
        if not isinstance(error, MemoryError) and not any(word in text for word in MEMORY):
            raise
    # Here the error is gone, and with it what its frames held.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return None
