"""Labels painted over an image: outlined regions, boxes and captions."""

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segtrain.label_set import LabelSet

OVERLAY_STRENGTH = 0.55
SHADES = (0.0, 0.45, -0.4, 0.7, -0.65, 0.25, -0.2)  # towards white (> 0) or black (< 0)
CAPTION_WIDTH = 150  # pixels, at most


def fit(image: np.ndarray, max_side: int) -> np.ndarray:
    """The image (H, W, 3), enlarged or reduced until its longer side is `max_side`."""
    scale = max_side / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def paint_regions(
    image: np.ndarray,
    regions: np.ndarray,
    colours: np.ndarray,
    hatched: np.ndarray,
    painted: np.ndarray,
) -> np.ndarray:
    """Regions over an image, outlined.

    Args:
        image: (h, w, 3) uint8 RGB.
        regions: (H, W) of any size, the number of each pixel's region, 0..R-1.
        colours: (R, 3) RGB.
        hatched: (R,) bool, regions that are striped and have no outline.
        painted: (R,) bool, regions that are seen at all.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    regions = cv2.resize(regions, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    rows, columns = np.indices(regions.shape)
    paint, strength = colours[regions], OVERLAY_STRENGTH * painted[regions][..., None]
    paint[hatched[regions] & ((rows + columns) // 4 % 2 == 0)] = 235
    picture = (strength * paint + (1 - strength) * image).round().astype(np.uint8)
    for axis in (0, 1):  # a dark and a white line stand out from any two colours
        first, second = (np.moveaxis(regions, axis, 0)[cut] for cut in (np.s_[:-1], np.s_[1:]))
        edge = (first != second) & ~hatched[first] & ~hatched[second]
        turned = np.moveaxis(picture, axis, 0)
        turned[1:][edge] = 255
        turned[:-1][edge] = 20
    return picture


def paint_masks(image: np.ndarray, masks: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Classes that may overlap over an image, outlined; stripes of all of them where they do.

    Args:
        image: (h, w, 3) uint8 RGB.
        masks: (K, H, W) bool, of any size.
        labels: the colours.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    small = [cv2.resize(mask.astype(np.uint8), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
             for mask in masks]  # fmt: skip
    shown = np.stack(small).astype(bool)
    count = shown.sum(0)
    rows, columns = np.indices(count.shape)
    turn = (rows + columns) // 4 % np.maximum(count, 1)
    chosen = (shown & (shown.cumsum(0) - 1 == turn)).argmax(0)
    strength = OVERLAY_STRENGTH * (count > 0)[..., None]
    paint = np.array(labels.palette)[chosen]
    picture = (strength * paint + (1 - strength) * image).round().astype(np.uint8)
    for mask, colour in zip(small, labels.palette, strict=True):
        outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, tuple(map(int, colour)), 1)
    return picture


def draw_instances(
    image: np.ndarray,
    boxes: np.ndarray,
    classes: np.ndarray,
    masks: np.ndarray,
    captions: list[str],
    hatched: np.ndarray,
    labels: LabelSet,
    max_side: int,
) -> np.ndarray:
    """Instances over an image: masks, boxes and captions in shades of their classes' colours.

    A caption that would cover the caption of a larger box is left out.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (n, 4) x1 y1 x2 y2 in pixels of the image; they may reach beyond it.
        classes: (n,) train ids.
        masks: (n, H, W), 0 or 1; where some overlap, the smallest is on top.
        captions: n texts.
        hatched: (n,) bool, masks that are striped, such as those of crowds.
        labels: the classes' colours.
        max_side: the longer side of the picture, which may be larger than the image's.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    owner = np.zeros(image.shape[:2], np.uint16)  # 0 or 1 + the instance's number
    for index in np.argsort([-np.count_nonzero(mask) for mask in masks]):
        owner[masks[index] > 0] = index + 1
    shades = instance_shades(classes, labels)
    colours, striped = np.vstack([[(0, 0, 0)], shades]), np.append(False, hatched).astype(bool)
    picture = fit(image, max_side)
    painted = paint_regions(picture, owner, colours, striped, np.arange(len(colours)) > 0)
    drawn = Image.fromarray(painted)
    scale = np.array(drawn.size * 2) / np.array(image.shape[1::-1] * 2)
    _draw_boxes(drawn, np.asarray(boxes, float).reshape(-1, 4) * scale, captions, shades)
    return np.array(drawn)


def draw_segments(
    image: np.ndarray,
    numbers: np.ndarray,
    classes: np.ndarray,
    captions: list[str],
    labels: LabelSet,
    max_side: int,
    hatched: np.ndarray | None = None,
) -> np.ndarray:
    """Segments over an image, outlined, in shades of their classes' colours.

    A caption that would cover the caption of a larger segment is left out.

    Args:
        image: (H, W, 3) uint8 RGB.
        numbers: (H, W), 0 of no segment, i of the i-th of n.
        classes: (n,) train ids.
        captions: n texts, which stand in the middle of their segments; empty for none.
        labels: the classes' colours.
        max_side: the longer side of the picture, which may be larger than the image's.
        hatched: (n + 1,) bool, what is striped, such as crowds; the first one of no segment.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    picture = image if max_side == max(image.shape[:2]) else fit(image, max_side)
    numbers = cv2.resize(
        numbers.astype(np.uint16), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST
    )
    shades = instance_shades(classes, labels)
    colours, every = np.vstack([[(0, 0, 0)], shades]), np.arange(len(classes) + 1)
    striped = every < 0 if hatched is None else hatched
    painted = (every > 0) | striped
    drawn = Image.fromarray(paint_regions(picture, numbers, colours, striped, painted))
    shown = [number for number in every[1:] if captions[number - 1]]
    masks = {number: mask for number in shown if (mask := numbers == number).any()}
    shown = sorted(masks, key=lambda number: -np.count_nonzero(masks[number]))
    written = Captions(drawn)
    for number in shown:
        column, row = innermost(masks[number])
        written.write(captions[number - 1], column, (row - 7,), shades[number - 1], centred=True)
    return np.array(drawn)


def innermost(mask: np.ndarray) -> tuple[int, int]:
    """Column and row of the pixel of a mask (H, W) that is farthest from its outside."""
    inside = np.pad(mask.astype(np.uint8), 1)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
    row, column = np.unravel_index(distance.argmax(), mask.shape)
    return int(column), int(row)


def instance_shades(classes: np.ndarray, labels: LabelSet) -> np.ndarray:
    """(n, 3) uint8: the class colour, lighter or darker from one instance of it to the next."""
    shades, seen = np.zeros((len(classes), 3), np.uint8), {}
    for index, label in enumerate(classes):
        nth = seen[int(label)] = seen.get(int(label), -1) + 1
        shift = SHADES[nth % len(SHADES)]
        colour = np.array(labels.palette[int(label)])
        shades[index] = colour + abs(shift) * ((255 if shift > 0 else 0) - colour)
    return shades


def _draw_boxes(
    picture: Image.Image, boxes: np.ndarray, captions: list[str], shades: np.ndarray
) -> None:
    """Boxes (n, 4) in pixels of the picture, with their captions, in place."""
    draw, written = ImageDraw.Draw(picture), Captions(picture)
    limits = np.array([picture.width - 1, picture.height - 1] * 2)
    boxes = np.clip(boxes, 0, limits)
    boxes[:, 2:] = np.maximum(boxes[:, :2], boxes[:, 2:])
    for box, shade in zip(boxes, shades, strict=True):
        draw.rectangle(tuple(box), outline=tuple(shade), width=2)
    for index in np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)):
        left, top, _, bottom = map(int, boxes[index])
        written.write(captions[index], left, (top - 15, top, bottom), shades[index], centred=False)


class Captions:
    """Writes captions into a picture (w, h), none of which covers another."""

    def __init__(self, picture: Image.Image) -> None:
        self.draw = ImageDraw.Draw(picture)
        self.font = typeface(12)
        self.taken = np.zeros((picture.height, picture.width), bool)

    def write(
        self, text: str, x: int, tops: Sequence[int], shade: np.ndarray, centred: bool
    ) -> None:
        """Writes a text at the first of the places that is free, if one is.

        Args:
            text: is shortened to CAPTION_WIDTH.
            x: the left side, or the middle where `centred`.
            tops: of the places.
            shade: (3,) RGB of the ground.
            centred: what `x` is.
        """
        text = shorten(text, CAPTION_WIDTH, self.font)
        width = math.ceil(self.font.getlength(text)) + 6
        height, limit = self.taken.shape
        left = max(0, min(x - width // 2 if centred else x, limit - 1 - width))
        for top in tops:
            spot = np.s_[max(0, top) : top + 15, left : left + width]
            if 0 <= top <= height - 15 and not self.taken[spot].any():
                self.taken[spot] = True
                self.draw.rectangle((left, top, left + width, top + 14), fill=tuple(shade))
                ink = "black" if shade @ (0.299, 0.587, 0.114) > 130 else "white"
                self.draw.text((left + 3, top), text, ink, self.font)
                return


@lru_cache
def typeface(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, `size` pixels high, from matplotlib's files: no system font is needed."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def shorten(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """The text on one line, its middle left out until it is at most `width` pixels wide."""
    text = short = " ".join(text.split())
    keep = len(text)
    while font.getlength(short) > width and keep > 2:
        keep -= 1
        short = f"{text[: (keep + 1) // 2]}…{text[len(text) - keep // 2 :]}"
    return short
