"""Training augmentation on uint8, in an order that touches only the pixels that stay visible."""

import copy
import random

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
from segtrain.dataset.scale_crop import RandomScaleCrop, ScaleTo
from segtrain.dataset.scale_jitter import ScaleJitter
from segtrain.label_set import VOID
from segtrain.values import Count, CountRange, Fraction, NonNegative, PositiveRange, Size

BLUR_SIGMA = (0.5, 1.5)  # pixels


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
    scale_to: ScaleTo = "source",
) -> SemanticPreset:
    """The training preset: random scale, rotation and crop, flip, blur, colours.

    Args:
        crop_size: (height, width) in pixels.
        scale_range: smallest and largest scale.
        rotation: largest angle in degrees, either way.
        flip: probability of a horizontal flip.
        blur: probability of a 5x5 Gaussian blur of the image.
        brightness, contrast, saturation, hue: jitter strengths, 0 for none; hue in turns.
        colours: more changes of colours, before the jitter.
        scale_to: what a scale of 1.0 is, see `RandomScaleCrop`.
    """
    steps: list[A.BasicTransform | A.BaseCompose] = [
        RandomScaleCrop(tuple(crop_size), tuple(scale_range), rotation, VOID, scale_to),
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
        scale_jitter: what scales and crops images instead; the sides are those of the test then.

    Raises:
        ValueError: `short_side` is no range of positive lengths.
    """

    collate_train = staticmethod(collate_objects)
    collate_eval = staticmethod(collate_instances)

    def __init__(
        self,
        short_side: CountRange,
        long_side: Count,
        flip: Fraction,
        scale_jitter: ScaleJitter | None = None,
    ) -> None:
        low, high = short_side
        if not 0 < low <= high:
            raise ValueError(f"short_side is [smallest, largest] in pixels, not {short_side}")
        self.short_side = low, high
        self.long_side = long_side
        self.flip = flip
        self.scale_jitter = scale_jitter

    def __call__(
        self, image: np.ndarray, target: InstanceTarget, seed: tuple[int, ...]
    ) -> tuple[np.ndarray, TrainInstances]:
        """Image (H, W, 3) and its instances -> both scaled, without the crowds."""
        rng = random.Random("/".join(map(str, seed)))
        if self.scale_jitter is not None:
            return self.scale_jitter(image, target, self.flip, rng)
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
