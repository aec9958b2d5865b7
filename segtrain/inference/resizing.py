"""Images at the size of the test, those of equal size together."""

from collections import defaultdict
from collections.abc import Callable
from typing import TypedDict, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from segtrain.errors import UserError
from segtrain.values import Count

Found = TypeVar("Found")


class InputSize(TypedDict, total=False):
    """What images are resized to, in pixels.

    With `short` and `long`, the largest size of the image's aspect whose shorter and longer sides
    are at most so long; one of them is enough. Or `height` and `width`, whatever the aspect.
    """

    short: Count
    long: Count
    height: Count
    width: Count


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


def require_size(size: InputSize, key: str) -> None:
    """Refuses what is no size.

    Raises:
        UserError: neither a bound, nor both height and width alone; `key` names it.
    """
    if not size or (size.keys() & {"height", "width"} and size.keys() != {"height", "width"}):
        raise UserError(
            f"{key}={size or '{}'}: expected short, long or both of them, such as "
            f"{key}={{short:512,long:2048}}, or height and width"
        )


def fitted(size: tuple[int, int], wanted: InputSize, scale: float) -> tuple[int, int]:
    """Height and width of an image of `size` at a scale relative to what is wanted.

    Sides are rounded, halves up.
    """
    if "height" in wanted:
        factors = [scale * wanted["height"] / size[0], scale * wanted["width"] / size[1]]
    else:
        sides = {"short": min(size), "long": max(size)}
        factors = [min(scale * bound / sides[name] for name, bound in wanted.items())] * 2
    return tuple(
        max(1, int(side * factor + 0.5)) for side, factor in zip(size, factors, strict=True)
    )
