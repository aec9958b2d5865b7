"""What the choice of values looks at: the training images, and the machine."""

import os
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch

from segtrain.assembly import build_data
from segtrain.configuration.schema import Recipe
from segtrain.dataset.files import upright_size
from segtrain.dataset.preflight import evenly_spaced
from segtrain.hardware import cores, uses_gpu

SAMPLED = 100  # images whose sizes and classes are looked at


class Facts(NamedTuple):
    """Of a training set and a machine.

    Args:
        images: to train on.
        size: median height and width of a sample of them.
        counts: (K,) pixels of each class in that sample; or instances.
        names: of the classes.
        instances: whether labels are of single objects.
        gpu: whether training is on one.
        cores: that this process may use.
        memory: bytes that are free, of the GPU or else of the host.
    """

    images: int
    size: tuple[int, int]
    counts: np.ndarray
    names: tuple[str, ...]
    instances: bool
    gpu: bool
    cores: int
    memory: int


def find_facts(config: Recipe) -> Facts:
    """Looks at a sample of the training images and their labels.

    Raises:
        UserError: the set is faulty.
    """
    data = build_data(config)
    source = data.source(data.splits["train"])
    sizes, counts = [], np.zeros(data.labels.num_classes + 1, np.int64)
    for index in evenly_spaced(len(source), SAMPLED):
        counts += source.class_counts(index)
        file = source.image_file(index)
        sizes.append(source.read(index)[0].shape[:2] if file is None else upright_size(file))
    size = tuple(round(median(sides)) for sides in zip(*sizes, strict=True))
    gpu = uses_gpu(config["trainer"])
    return Facts(
        images=len(source),
        size=size,
        counts=counts[:-1],
        names=data.labels.names,
        instances="short_side" in config["dataset"]["transform"],
        gpu=gpu,
        cores=cores(),
        memory=torch.cuda.mem_get_info()[0] if gpu else host_memory(),
    )


def host_memory() -> int:
    """Bytes that programs may still take, as Linux estimates it; elsewhere half of all."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
