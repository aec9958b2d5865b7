"""Training crops of single objects, as DeconvNet learns from (Noh et al., ICCV 2015, section 4)."""

import random
from typing import Literal, NamedTuple

import cv2
import numpy as np

from segtrain.dataset.scale_crop import MEAN_RGB
from segtrain.dataset.transforms import A, SemanticPreset
from segtrain.errors import UserError
from segtrain.label_set import VOID
from segtrain.values import Fraction, Positive, ProperFraction, Size

BACKGROUND = 0  # the train id that no object has
SMALLEST = 200  # pixels; an object with fewer is chosen only where there is no other
MIN_IOU, TRIES = 0.5, 10  # of a jittered box with the object's own


class Box(NamedTuple):
    """Centre and sides in source pixels."""

    y: float
    x: float
    height: float
    width: float

    def scaled(self, height: float, width: float) -> "Box":
        return Box(self.y, self.x, self.height * height, self.width * width)

    def iou(self, other: "Box") -> float:
        overlaps = [
            min(a + b / 2, c + d / 2) - max(a - b / 2, c - d / 2)
            for a, b, c, d in (
                (self.y, self.height, other.y, other.height),
                (self.x, self.width, other.x, other.width),
            )
        ]
        common = max(0.0, overlaps[0]) * max(0.0, overlaps[1])
        return common / (self.height * self.width + other.height * other.width - common)


class RandomObjectCrop(A.DualTransform):
    """The box around one object of the mask, resized and cropped at random.

    Objects are connected components of one class; VOC's void borders part those that touch. An
    image without any gives a random box with sides of half to all of its own. Where the box leaves
    the image, the image is padded with the mean colour and the mask with void.

    Args:
        size: height and width of the crop, in pixels.
        resize: height and width that the box is resized to, whatever its aspect.
        enlarge: factor on the sides of the object's box.
        jitter: before that, the centre moves by up to jitter x side and each side is scaled by
            [1-jitter, 1+jitter], with an IoU of at least 0.5 with the object's box.
        others: what becomes of the other classes: `background`, or `keep`.
    """

    def __init__(
        self,
        size: tuple[int, int],
        resize: tuple[int, int],
        enlarge: float,
        jitter: float,
        others: str,
    ) -> None:
        super().__init__(p=1.0)
        self.size = size
        self.resize = resize
        self.enlarge = enlarge
        self.jitter = jitter
        self.others = others

    def get_params_dependent_on_data(self, params: dict, data: dict) -> dict:
        objects = find_objects(data["mask"])
        if objects:
            train_id, box = self.py_random.choice(objects)
            box = jittered(box, self.jitter, self.py_random).scaled(self.enlarge, self.enlarge)
        else:
            train_id, box = BACKGROUND, random_box(params["shape"][:2], self.py_random)
        corner, window = [], []
        for centre, side, crop, resize in zip(
            box[:2], box[2:], self.size, self.resize, strict=True
        ):
            # The crop's share of the box is cut out, so that only it is resized.
            whole = max(1, round(side))
            visible = max(1, round(side * crop / resize))
            corner.append(round(centre - side / 2) + self.py_random.randint(0, whole - visible))
            window.append(visible)
        return {"corner": tuple(corner), "window": tuple(window), "train_id": train_id}

    def apply(self, img: np.ndarray, corner: tuple, window: tuple, **params: object) -> np.ndarray:
        # Where it enlarges one side, INTER_AREA is blocky.
        shrinks = window[0] > self.size[0] and window[1] > self.size[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        cut = cut_out(img, corner, window, MEAN_RGB)
        return cv2.resize(cut, self.size[::-1], interpolation=method)

    def apply_to_mask(
        self, mask: np.ndarray, corner: tuple, window: tuple, train_id: int, **params: object
    ) -> np.ndarray:
        cut = cut_out(mask, corner, window, VOID)
        resized = cv2.resize(cut, self.size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        if self.others == "background":
            resized[(resized != train_id) & (resized != VOID)] = BACKGROUND
        return resized


def find_objects(mask: np.ndarray) -> list[tuple[int, Box]]:
    """Class and box of each connected component of a foreground class of a mask (H, W)."""
    found = []
    for train_id in np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist():
        if train_id in (BACKGROUND, VOID):
            continue
        _, _, stats, _ = cv2.connectedComponentsWithStats((mask == train_id).view(np.uint8))
        for left, top, width, height, area in stats[1:].tolist():
            box = Box(top + height / 2, left + width / 2, height, width)
            found.append((area, train_id, box))
    large = [entry for entry in found if entry[0] >= SMALLEST]
    return [(train_id, box) for _, train_id, box in large or found]


def jittered(box: Box, jitter: float, rng: random.Random) -> Box:
    """The box moved and scaled at random; itself without jitter or where no try overlaps enough."""
    for _ in range(TRIES if jitter else 0):
        y, x = (rng.uniform(-jitter, jitter) for _ in range(2))
        moved = Box(box.y + y * box.height, box.x + x * box.width, box.height, box.width)
        moved = moved.scaled(*(rng.uniform(1 - jitter, 1 + jitter) for _ in range(2)))
        if moved.iou(box) >= MIN_IOU:
            return moved
    return box


def random_box(shape: tuple[int, int], rng: random.Random) -> Box:
    """A box inside an image, with sides of half to all of the image's."""
    height, width = (rng.uniform(0.5, 1.0) * length for length in shape)
    y = rng.uniform(height / 2, shape[0] - height / 2)
    x = rng.uniform(width / 2, shape[1] - width / 2)
    return Box(y, x, height, width)


def cut_out(
    array: np.ndarray,
    corner: tuple[int, int],
    window: tuple[int, int],
    value: int | tuple[int, ...],
) -> np.ndarray:
    """The part of an array (H, W) or (H, W, C) in a window, `value` where that leaves the array.

    Args:
        array: uint8.
        corner: row and column of the window's first pixel; may be negative.
        window: height and width.
        value: one, or one a channel.
    """
    inside = tuple(
        slice(max(0, start), max(0, min(start + size, length)))
        for start, size, length in zip(corner, window, array.shape[:2], strict=True)
    )
    part = array[inside]
    if part.shape[:2] == window:
        return part
    padded = np.full((*window, *array.shape[2:]), value, np.uint8)
    place = tuple(
        slice(side.start - start, side.start - start + size)
        for side, start, size in zip(inside, corner, part.shape[:2], strict=True)
    )
    padded[place] = part
    return padded


def train_object_crops(
    crop_size: Size,
    resize: Size,
    enlarge: Positive,
    jitter: ProperFraction,
    others: Literal["background", "keep"],
    flip: Fraction,
) -> SemanticPreset:
    """DeconvNet's training preset: an object's box, resized, cropped, flipped.

    Stage 1 takes `jitter` 0 and `others` background. Stage 2 takes `keep` and a jitter that stands
    in for the paper's proposals (Edge Boxes that overlap an object).

    Args:
        crop_size: (height, width) in pixels.
        resize: (height, width) of the box before the crop; no smaller.
        enlarge: factor on the sides of the object's box.
        jitter: largest shift of the box, and change of its sides, as a share of them.
        others: `background` or `keep`; void stays void.
        flip: probability of a horizontal flip.

    Raises:
        UserError: the crop is larger than the resized box.
    """
    if crop_size[0] > resize[0] or crop_size[1] > resize[1]:
        raise UserError(f"crop_size {list(crop_size)} is larger than resize {list(resize)}")
    crop = RandomObjectCrop(tuple(crop_size), tuple(resize), enlarge, jitter, others)
    return SemanticPreset([crop, A.HorizontalFlip(p=flip)])
