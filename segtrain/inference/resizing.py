"""Images at the size of the test, those of equal size together."""

from collections import defaultdict
from collections.abc import Callable
from typing import Literal, TypedDict, TypeVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from segtrain.errors import UserError
from segtrain.values import Count

Found = TypeVar("Found")

# How images are resized, bilinearly throughout. `antialiased` where they become smaller; `plain`
# never, `aligned` with the corners' pixels on one another; or by a library in whole steps of 255:
# `opencv`, without antialiasing, and `pillow`, with it.
Resampling = Literal["antialiased", "plain", "aligned", "opencv", "pillow"]
Rounding = Literal["nearest", "down"]  # of sides, halves up


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


def resized(
    images: list[Tensor], size: tuple[int, int], resampling: Resampling = "antialiased"
) -> tuple[Tensor, tuple[float, float]]:
    """Images (3, H, W) uint8 of one size, at height and width `size`.

    Returns:
        (N, 3, *size) in 0..255, float32 or as `resampling` leaves them, and as they were where
        their size is right; and what lengths were multiplied by, horizontally and vertically.
    """
    height, width = images[0].shape[1:]
    batch = torch.stack(images)
    if size != (height, width):
        if resampling in ("opencv", "pillow"):
            batch = torch.stack([_by_library(image, size, resampling) for image in images])
        else:
            batch = F.interpolate(
                batch.float(),
                size,
                mode="bilinear",
                align_corners=resampling == "aligned",
                antialias=resampling == "antialiased" and size[0] < height,
            )
    return batch, (size[1] / width, size[0] / height)


def _by_library(image: Tensor, size: tuple[int, int], library: str) -> Tensor:
    pixels = image.permute(1, 2, 0).contiguous().cpu().numpy()
    if library == "opencv":
        pixels = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR)
    else:
        pixels = np.array(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels).permute(2, 0, 1).to(image.device)


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


def fitted(
    size: tuple[int, int], wanted: InputSize, scale: float = 1.0, rounding: Rounding = "nearest"
) -> tuple[int, int]:
    """Height and width of an image of `size` at a scale relative to what is wanted."""
    if "height" in wanted:
        factors = [scale * wanted["height"] / size[0], scale * wanted["width"] / size[1]]
    else:
        sides = {"short": min(size), "long": max(size)}
        factors = [min(scale * bound / sides[name] for name, bound in wanted.items())] * 2
    half = 0.5 if rounding == "nearest" else 0.0
    return tuple(
        max(1, int(side * factor + half)) for side, factor in zip(size, factors, strict=True)
    )
