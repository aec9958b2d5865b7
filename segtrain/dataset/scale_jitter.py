"""Large-scale jitter of an image and its instances."""

import random

import cv2
import numpy as np

from segtrain.contracts import InstanceTarget, TrainInstances
from segtrain.dataset.instances import target_from_masks, training_objects
from segtrain.dataset.scale_crop import fitted_crop
from segtrain.values import PositiveRange, Size


class ScaleJitter:
    """Random scale over a wide range, random crop, padding (Ghiasi et al. 2021, 2012.07177, 3).

    What the scaled image is too small to fill is padded right and bottom with the mean colour.
    Objects of which the crop shows nothing are dropped, and the boxes of all others are those of
    what it shows.

    Args:
        crop_size: height and width of every training image, in pixels.
        scale_range: the scale is drawn uniformly from it; 1.0 fits the image into the crop.
    """

    def __init__(self, crop_size: Size, scale_range: PositiveRange) -> None:
        self.crop_size = tuple(crop_size)
        self.scale_range = tuple(scale_range)

    def __call__(
        self, image: np.ndarray, target: InstanceTarget, flip: float, rng: random.Random
    ) -> tuple[np.ndarray, TrainInstances]:
        """Image (H, W, 3) and its instances -> (*crop_size, 3) and the single objects it shows.

        Args:
            image: uint8.
            target: its instances.
            flip: probability of a horizontal flip.
            rng: all that is drawn is drawn from it.
        """
        crop, drawn = fitted_crop(image.shape, self.crop_size, self.scale_range, rng)
        drawn["offset"] = (0, 0)
        image = crop.apply(image, **drawn)
        mirrored = rng.random() < flip
        rows, columns = drawn["window"]
        height, width = drawn["target"]
        visible = target["masks"][:, rows, columns]
        chosen = np.flatnonzero(visible.any((1, 2)) & ~target["crowd"])
        labels, crowd = target["labels"][chosen].tolist(), target["crowd"][chosen]
        shown = target_from_masks(visible[chosen], labels, crowd, target["image_id"])
        objects = training_objects(shown, (width, height), mirrored)
        if mirrored:
            image = cv2.flip(image, 1)
            shift = self.crop_size[1] - width
            for name in ("boxes", "windows"):
                objects[name][:, [0, 2]] += shift
        return image, objects
