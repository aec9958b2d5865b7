"""Images at the size of the test, those of equal size together."""

from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

Found = TypeVar("Found")


def by_size(images: list[Tensor], find: Callable[[list[Tensor]], list[Found]]) -> list[Found]:
    """What `find` says of images (C, H, W), given those of equal size together.

    None is padded because of another, so what stands beside an image does not change its result.

    Args:
        images: of any sizes.
        find: images of one size -> one result each.
    """
    indices_of = defaultdict(list)
    for index, image in enumerate(images):
        indices_of[image.shape[1:]].append(index)
    results: dict[int, Found] = {}
    for indices in indices_of.values():
        found = find([images[index] for index in indices])
        results.update(zip(indices, found, strict=True))
    return [results[index] for index in range(len(images))]


def resized(images: list[Tensor], size: tuple[int, int]) -> tuple[Tensor, tuple[float, float]]:
    """Images (3, H, W) of one size, in 0..255, at height and width `size`.

    Returns:
        (N, 3, *size) float32, or as they were where their size is right; and what lengths were
        multiplied by, horizontally and vertically.
    """
    height, width = images[0].shape[1:]
    batch = torch.stack(images)
    if size != (height, width):
        batch = F.interpolate(batch.float(), size, mode="bilinear", antialias=size[0] < height)
    return batch, (size[1] / width, size[0] / height)


def size_at_test(size: tuple[int, int], short_side: int, long_side: int) -> tuple[int, int]:
    """Height and width of an image of `size` once its shorter side is `short_side`.

    Or less, where the longer one would be longer than `long_side`. Fractions are cut off.
    """
    scale = min(short_side / min(size), long_side / max(size))
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))
