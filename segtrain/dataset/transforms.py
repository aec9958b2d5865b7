"""Training augmentation on uint8, in an order that touches only the pixels that stay visible."""

import copy
import math
import random
from collections.abc import Sequence

import cv2
import numpy as np

from segtrain.contracts import InstanceTarget, TrainInstances
from segtrain.dataset.batches import (
    collate_crops,
    collate_images,
    collate_instances,
    collate_objects,
)
from segtrain.dataset.colours import PhotometricJitter
from segtrain.dataset.instances import training_objects
from segtrain.dataset.random_colours import A, RandomColours
from segtrain.label_set import VOID
from segtrain.values import Count, CountRange, Fraction, NonNegative, PositiveRange, Size

MEAN_RGB = (124, 116, 104)  # ImageNet's mean colour: padding that normalises to about zero
BLUR_SIGMA = (0.5, 1.5)  # pixels


class RandomScaleCrop(A.DualTransform):
    """Random scale, then random crop, turned or not, without ever resizing the whole image.

    The window that the crop would see is cut out of the source first and resized alone. What the
    scaled image is too small to fill is padded, the image with the mean colour, the mask with void.

    Args:
        size: height and width of the crop, in pixels.
        scale_range: the scale is drawn uniformly from it; 1.0 is the source's own resolution.
        rotation: the angle, in degrees, is drawn uniformly from [-rotation, rotation].
        ignore_index: void.
    """

    def __init__(
        self,
        size: tuple[int, int],
        scale_range: tuple[float, float],
        rotation: float,
        ignore_index: int,
    ) -> None:
        super().__init__(p=1.0)
        self.size = size
        self.scale_range = scale_range
        self.rotation = rotation
        self.ignore_index = ignore_index

    def get_params_dependent_on_data(self, params: dict, data: dict) -> dict:
        scale = self.py_random.uniform(*self.scale_range)
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


class SemanticPreset:
    """Augmentation of an image and its mask, as a function of a seed, and how samples are batched.

    Args:
        steps: what is done, in order.
        jitter: of the colours, after all steps; or None.
    """

    collate_train = staticmethod(collate_crops)
    collate_eval = staticmethod(collate_images)

    def __init__(
        self, steps: list[A.BasicTransform | A.BaseCompose], jitter: PhotometricJitter | None = None
    ) -> None:
        self.compose = A.Compose(steps)
        self.jitter = jitter
        self.leaves_colours = False

    def leaving_colours(self) -> "SemanticPreset":
        """The same preset, whose samples have their colour matrix as a third entry, to be applied.

        A device does it in no time, a loader worker in as much as the rest of a sample takes.
        """
        changed = copy.copy(self)
        changed.leaves_colours = self.jitter is not None
        return changed

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, seed: tuple[int, ...]
    ) -> tuple[np.ndarray, ...]:
        """Image (H, W, 3) and mask (H, W), or planes (H, W, B) -> both of the crop size.

        Equal seeds, equal results.
        """
        rng = random.Random("/".join(map(str, seed)))
        self.compose.set_random_state(np.random.default_rng(seed), rng)
        sample = self.compose(image=image, mask=mask)
        image, mask = sample["image"], sample["mask"]
        if self.jitter is None:
            return image, mask
        colours = self.jitter.draw(rng)
        if self.leaves_colours:
            return image, mask, colours
        return cv2.transform(image, colours), mask  # saturates to 0..255


def train_semantic(
    crop_size: Size,
    scale_range: PositiveRange,
    rotation: NonNegative,
    flip: Fraction,
    blur: Fraction,
    brightness: NonNegative,
    contrast: NonNegative,
    saturation: NonNegative,
    hue: NonNegative,
    colours: RandomColours | None = None,
) -> SemanticPreset:
    """The training preset: random scale, rotation and crop, flip, blur, colours.

    Args:
        crop_size: (height, width) in pixels.
        scale_range: smallest and largest scale of the source.
        rotation: largest angle in degrees, either way.
        flip: probability of a horizontal flip.
        blur: probability of a 5x5 Gaussian blur of the image.
        brightness, contrast, saturation, hue: jitter strengths, 0 for none; hue in turns.
        colours: more changes of colours, before the jitter.
    """
    steps: list[A.BasicTransform | A.BaseCompose] = [
        RandomScaleCrop(tuple(crop_size), tuple(scale_range), rotation, VOID),
        A.HorizontalFlip(p=flip),
    ]
    if blur:
        steps.append(A.GaussianBlur(blur_limit=(5, 5), sigma_limit=BLUR_SIGMA, p=blur))
    if colours is not None:
        steps += colours.steps()
    if not (brightness or contrast or saturation or hue):
        return SemanticPreset(steps)
    return SemanticPreset(steps, PhotometricJitter(brightness, contrast, saturation, hue))


class InstancePreset:
    """Mask R-CNN's augmentation (arXiv 1703.06870, 3.1): a scale by the shorter side, and a flip.

    Args:
        short_side: smallest and largest length in pixels; the shorter side is drawn uniformly from
            the whole numbers between them, both included.
        long_side: the longer side is never longer; the scale gives way.
        flip: probability of a horizontal flip.

    Raises:
        ValueError: `short_side` is no range of positive lengths.
    """

    collate_train = staticmethod(collate_objects)
    collate_eval = staticmethod(collate_instances)

    def __init__(self, short_side: CountRange, long_side: Count, flip: Fraction) -> None:
        low, high = short_side
        if not 0 < low <= high:
            raise ValueError(f"short_side is [smallest, largest] in pixels, not {short_side}")
        self.short_side = low, high
        self.long_side = long_side
        self.flip = flip

    def __call__(
        self, image: np.ndarray, target: InstanceTarget, seed: tuple[int, ...]
    ) -> tuple[np.ndarray, TrainInstances]:
        """Image (H, W, 3) and its instances -> both scaled, without the crowds."""
        rng = random.Random("/".join(map(str, seed)))
        height, width = image.shape[:2]
        scale = min(
            rng.randint(*self.short_side) / min(height, width), self.long_side / max(height, width)
        )
        size = max(1, round(width * scale)), max(1, round(height * scale))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        image = cv2.resize(image, size, interpolation=method)
        flip = rng.random() < self.flip
        if flip:
            image = cv2.flip(image, 1)
        return image, training_objects(target, size, flip)
