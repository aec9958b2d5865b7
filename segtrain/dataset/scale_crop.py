"""Random scale, crop and rotation of an image and its masks, of the visible pixels alone."""

import math
import random
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np

from segtrain.dataset.random_colours import A

ScaleTo = Literal["source", "fit", "cover"]

MEAN_RGB = (124, 116, 104)  # ImageNet's mean colour: padding that normalises to about zero


class RandomScaleCrop(A.DualTransform):
    """Random scale, then random crop, turned or not, without ever resizing the whole image.

    The window that the crop would see is cut out of the source first and resized alone. What the
    scaled image is too small to fill is padded, the image with the mean colour, the mask with void.

    Args:
        size: height and width of the crop, in pixels.
        scale_range: the scale is drawn uniformly from it.
        scale_to: what 1.0 is: the `source`'s own resolution; the one at which the image would `fit`
            into the crop (large-scale jitter, Ghiasi et al. 2021); or just `cover` it.
        rotation: the angle, in degrees, is drawn uniformly from [-rotation, rotation].
        ignore_index: void.
    """

    def __init__(
        self,
        size: tuple[int, int],
        scale_range: tuple[float, float],
        rotation: float,
        ignore_index: int,
        scale_to: ScaleTo = "source",
    ) -> None:
        super().__init__(p=1.0)
        self.size = size
        self.scale_range = scale_range
        self.rotation = rotation
        self.ignore_index = ignore_index
        self.scale_to = scale_to

    def get_params_dependent_on_data(self, params: dict, data: dict) -> dict:
        scale = self.py_random.uniform(*self.scale_range) * self._unit(params["shape"])
        limit = math.radians(self.rotation)
        angle = self.py_random.uniform(-limit, limit) if limit else 0.0
        outer = bounds_of_turned(self.size, angle) if angle else self.size
        window, target, offset = [], [], []
        for length, crop in zip(params["shape"][:2], outer, strict=True):
            visible = max(1, min(length, round(crop / scale)))  # source pixels that stay visible
            start = self.py_random.randint(0, length - visible)
            size = crop if visible < length else min(crop, max(1, round(length * scale)))
            window.append(slice(start, start + visible))
            target.append(size)
            offset.append(self.py_random.randint(0, crop - size))
        turn = turn_matrix(self.size, outer, offset, angle) if angle else None
        return {
            "window": tuple(window),
            "target": tuple(target),
            "offset": tuple(offset),
            "turn": turn,
        }

    def _unit(self, shape: tuple[int, ...]) -> float:
        """What a drawn scale of 1.0 stands for."""
        ratios = [crop / side for crop, side in zip(self.size, shape[:2], strict=True)]
        return {"source": 1.0, "fit": min(ratios), "cover": max(ratios)}[self.scale_to]

    def apply(
        self,
        img: np.ndarray,
        window: tuple,
        target: tuple,
        offset: tuple,
        turn: np.ndarray | None,
        **params: object,
    ) -> np.ndarray:
        # INTER_AREA averages what it drops; INTER_LINEAR would skip it and lose thin structures.
        shrinks = target[0] < window[0].stop - window[0].start
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        resized = cv2.resize(img[window], target[::-1], interpolation=method)
        return self._place(resized, offset, turn, cv2.INTER_LINEAR, MEAN_RGB)

    def apply_to_mask(
        self,
        mask: np.ndarray,
        window: tuple,
        target: tuple,
        offset: tuple,
        turn: np.ndarray | None,
        **params: object,
    ) -> np.ndarray:
        # NEAREST_EXACT samples at pixel centres as INTER_LINEAR does; plain NEAREST is off by half.
        resized = cv2.resize(mask[window], target[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        value = (self.ignore_index,) * 4
        if resized.ndim == 2 or resized.shape[2] <= len(value):
            return self._place(resized, offset, turn, cv2.INTER_NEAREST, value)
        parts = np.split(resized, range(len(value), resized.shape[2], len(value)), 2)
        placed = [self._place(part, offset, turn, cv2.INTER_NEAREST, value) for part in parts]
        return np.dstack(placed)  # OpenCV pads and turns no more than four channels

    def _place(
        self,
        array: np.ndarray,
        offset: tuple[int, int],
        turn: np.ndarray | None,
        method: int,
        value: int | tuple[int, ...],
    ) -> np.ndarray:
        """Turned or not, to the crop size; `value` where there is nothing."""
        border = cv2.BORDER_CONSTANT
        if turn is not None:
            flags = method | cv2.WARP_INVERSE_MAP
            return cv2.warpAffine(array, turn, self.size[::-1], None, flags, border, value)
        if array.shape[:2] == self.size:
            return array
        (top, left), (height, width) = offset, array.shape[:2]
        bottom, right = self.size[0] - height - top, self.size[1] - width - left
        return cv2.copyMakeBorder(array, top, bottom, left, right, border, value=value)


def bounds_of_turned(size: tuple[int, int], angle: float) -> tuple[int, int]:
    """Height and width of the upright box around a rectangle turned by an angle in radians."""
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    height, width = size
    return math.ceil(height * cos + width * sin), math.ceil(width * cos + height * sin)


def turn_matrix(
    size: tuple[int, int], outer: tuple[int, int], offset: Sequence[int], angle: float
) -> np.ndarray:
    """(2, 3) map of (x, y) in a crop turned about its centre to (x, y) in an array.

    Args:
        size: height and width of the crop.
        outer: of the upright crop with the same centre.
        offset: row and column of the array's first pixel in the upright crop.
        angle: in radians.
    """
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    centre, outer_centre = ((np.array(shape[::-1]) - 1) / 2 for shape in (size, outer))
    shift = outer_centre - offset[::-1] - turn @ centre
    return np.column_stack([turn, shift])


def fitted_crop(
    shape: tuple[int, ...],
    size: tuple[int, int],
    scale_range: tuple[float, float],
    rng: random.Random,
) -> tuple[RandomScaleCrop, dict]:
    """A crop of `size`, whose scale 1.0 fits an image of `shape` into it, and what it drew."""
    crop = RandomScaleCrop(size, scale_range, rotation=0.0, ignore_index=0, scale_to="fit")
    crop.set_random_state(np.random.default_rng(rng.getrandbits(32)), rng)
    return crop, crop.get_params_dependent_on_data({"shape": shape}, {})
