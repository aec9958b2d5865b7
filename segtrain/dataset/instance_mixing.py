"""Training samples made of several: copy-paste and mosaic, on uint8, for instances.

Images are mixed before the training preset, which then scales and mirrors the result.
"""

import random

import cv2
import numpy as np

from segtrain.contracts import InstanceTarget
from segtrain.dataset.instances import target_from_masks
from segtrain.dataset.mixing import REACH, Read, Sample, Transform, generator
from segtrain.dataset.scale_crop import fitted_crop
from segtrain.values import Count, Fraction, PositiveRange, Size

Labelled = tuple[np.ndarray, InstanceTarget]


class CopyPaste:
    """Objects of another image on this one, both jittered in scale (Ghiasi et al. 2021, section 3).

    Each object of the other image is pasted with probability 0.5. What it hides is taken from the
    masks below it, and boxes and areas follow the masks. Crowds are not pasted. Images that are
    left without an object stay as they were. The paper blends edges and finds no need for it.

    Args:
        probability: of a sample that it is mixed.
        size: height and width of the canvas, in pixels.
        scale_range: the scale is drawn uniformly from it; 1.0 fits the image into the canvas. Large
            scale jitter is [0.1, 2.0].
        flip: probability of a horizontal flip of each image.
        least_area: objects of which fewer pixels stay visible are dropped.
    """

    semantic = overlapping = False

    def __init__(
        self,
        probability: Fraction,
        size: Size,
        scale_range: PositiveRange,
        flip: Fraction,
        least_area: Count,
    ) -> None:
        self.probability = probability
        self.size = tuple(size)
        self.scale_range = tuple(scale_range)
        self.flip = flip
        self.least_area = least_area

    def __call__(self, read: Read, transform: Transform, seed: tuple[int, ...]) -> Sample:
        rng, own = generator(seed), read(0)
        if rng.random() >= self.probability:
            return transform(*own, seed)
        below, above = (
            jittered(*sample, self.size, self.scale_range, self.flip, rng)
            for sample in (own, read(rng.randint(1, REACH)))
        )
        mixed = pasted_objects(below, above, self.least_area, rng)
        return transform(*(mixed if has_objects(mixed) else own), seed)


class Mosaic:
    """Four images around a point of a canvas (Bochkovskiy et al. 2020, section 3.3).

    Each fills its quarter, jittered in scale; what a quarter cuts off is taken from masks, boxes
    and areas. A canvas that is left without an object stays the image that it was.

    Args:
        probability: of a sample that it is mixed.
        size: height and width of the canvas, in pixels.
        scale_range: as of `CopyPaste`; 1.0 fits an image into its quarter.
        least_area: objects of which fewer pixels stay visible are dropped.
    """

    semantic = overlapping = False

    def __init__(
        self, probability: Fraction, size: Size, scale_range: PositiveRange, least_area: Count
    ) -> None:
        self.probability = probability
        self.size = tuple(size)
        self.scale_range = tuple(scale_range)
        self.least_area = least_area

    def __call__(self, read: Read, transform: Transform, seed: tuple[int, ...]) -> Sample:
        rng, own = generator(seed), read(0)
        if rng.random() >= self.probability:
            return transform(*own, seed)
        # the point lies in the middle half, so that no quarter is a sliver
        row, column = (round(side * rng.uniform(0.25, 0.75)) for side in self.size)
        rows, columns = (0, row, self.size[0]), (0, column, self.size[1])
        samples = [own, *(read(rng.randint(1, REACH)) for _ in range(3))]
        image = np.zeros((*self.size, 3), np.uint8)
        masks, labels, crowd = [], [], []
        for number, sample in enumerate(samples):
            y, x = divmod(number, 2)
            place = slice(*rows[y : y + 2]), slice(*columns[x : x + 2])
            room = place[0].stop - place[0].start, place[1].stop - place[1].start
            image[place], target = jittered(*sample, room, self.scale_range, 0.0, rng)
            whole = np.zeros((len(target["masks"]), *self.size), np.uint8)
            whole[:, *place] = target["masks"]
            masks.append(whole)
            labels.append(target["labels"])
            crowd.append(target["crowd"])
        parts = (np.concatenate(part) for part in (masks, labels, crowd))
        target = visible_target(*parts, self.least_area, own[1]["image_id"])
        mixed = image, target
        return transform(*(mixed if has_objects(mixed) else own), seed)


def jittered(
    image: np.ndarray,
    target: InstanceTarget,
    size: tuple[int, int],
    scale_range: tuple[float, float],
    flip: float,
    rng: random.Random,
) -> Labelled:
    """An image scaled by chance, cropped or padded to `size`, and the masks of its objects.

    Masks may lose all pixels; boxes and areas are left as they were, for `visible_target`.
    """
    crop, drawn = fitted_crop(image.shape, size, scale_range, rng)
    image = crop.apply(image, **drawn)
    masks = np.zeros((len(target["masks"]), *size), np.uint8)
    for placed, mask in zip(masks, target["masks"], strict=True):
        placed[:] = crop.apply_to_mask(mask, **drawn)
    if rng.random() < flip:
        image, masks = cv2.flip(image, 1), masks[:, :, ::-1]
    return image, {**target, "masks": masks}


def pasted_objects(
    below: Labelled, above: Labelled, least_area: int, rng: random.Random
) -> Labelled:
    """Some objects of `above` over `below`, both of one size."""
    (image, first), (other, second) = below, above
    candidates = np.flatnonzero(~second["crowd"]).tolist()
    chosen = [index for index in candidates if rng.random() < 0.5]
    objects = second["masks"][chosen]
    hidden = objects.any(0)
    masks = np.concatenate([first["masks"] * ~hidden, objects])
    labels = np.concatenate([first["labels"], second["labels"][chosen]])
    crowd = np.concatenate([first["crowd"], second["crowd"][chosen]])
    image = np.where(hidden[..., None], other, image)
    return image, visible_target(masks, labels, crowd, least_area, first["image_id"])


def visible_target(
    masks: np.ndarray, labels: np.ndarray, crowd: np.ndarray, least_area: int, image_id: int
) -> InstanceTarget:
    """Of the instances that show enough pixels, with the boxes and areas of their masks."""
    kept = np.flatnonzero(np.count_nonzero(masks, (1, 2)) >= least_area)
    return target_from_masks(masks[kept], labels[kept].tolist(), crowd[kept], image_id)


def has_objects(sample: Labelled) -> bool:
    """Whether an instance is more than a crowd."""
    return not sample[1]["crowd"].all()
