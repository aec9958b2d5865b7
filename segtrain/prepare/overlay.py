"""One training sample as a picture: the image, and its labels over it."""

import math
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segtrain.contracts import InstanceTarget, LabelSet

OVERLAY_STRENGTH = 0.55
PICTURE_SIDE = 336  # longer side of a picture, in pixels
SHADES = (0.0, 0.45, -0.4, 0.7, -0.65, 0.25, -0.2)  # towards white (> 0) or black (< 0)


class Sample(NamedTuple):
    """One training sample as the network gets it, before normalisation."""

    name: str
    image: np.ndarray  # (H, W, 3) uint8 RGB, after augmentation
    label: np.ndarray | InstanceTarget  # (H, W) uint8 train ids, 255 void; or instances

    @property
    def instances(self) -> InstanceTarget | None:
        """The label of an instance set's sample."""
        return None if isinstance(self.label, np.ndarray) else self.label


def draw_sample(sample: Sample, labels: LabelSet) -> tuple[Image.Image, Image.Image]:
    """Image and overlay, scaled to PICTURE_SIDE."""
    height, width = sample.image.shape[:2]
    scale = PICTURE_SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = cv2.resize(sample.image, size, interpolation=cv2.INTER_AREA)
    instances, void = sample.instances, labels.num_classes
    if instances is None:
        colours, hatched = np.array([*labels.palette, (70, 70, 70)]), np.arange(void + 1) == void
        overlay = _paint(
            image, np.minimum(sample.label, void), colours, hatched, np.full(void + 1, True)
        )
        return Image.fromarray(image), Image.fromarray(overlay)
    owner = np.zeros((height, width), np.uint16)  # 0 or 1 + the instance's number
    for index in np.argsort([-np.count_nonzero(mask) for mask in instances["masks"]]):
        owner[instances["masks"][index] > 0] = index + 1  # the smallest comes last and stays on top
    shades = _instance_shades(instances, labels)
    colours, hatched = np.vstack([[(0, 0, 0)], shades]), np.append(False, instances["crowd"])
    overlay = _paint(image, owner, colours, hatched.astype(bool), np.arange(len(colours)) > 0)
    drawn = Image.fromarray(overlay)
    _draw_boxes(drawn, instances, shades, labels, scale)
    return Image.fromarray(image), drawn


def _paint(
    image: np.ndarray,
    regions: np.ndarray,
    colours: np.ndarray,
    hatched: np.ndarray,
    painted: np.ndarray,
) -> np.ndarray:
    """Regions of any size over the image (h, w, 3), outlined.

    `colours` (R, 3), `hatched` (R,) bool and `painted` (R,) bool tell the look of a region.
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


def _instance_shades(instances: InstanceTarget, labels: LabelSet) -> np.ndarray:
    """(n, 3) uint8: the class colour, lighter or darker from one instance of it to the next."""
    shades, seen = np.zeros((len(instances["labels"]), 3), np.uint8), {}
    for index, label in enumerate(instances["labels"]):
        nth = seen[int(label)] = seen.get(int(label), -1) + 1
        shift = SHADES[nth % len(SHADES)]
        colour = np.array(labels.palette[int(label)])
        shades[index] = colour + abs(shift) * ((255 if shift > 0 else 0) - colour)
    return shades


def _draw_boxes(
    overlay: Image.Image,
    instances: InstanceTarget,
    shades: np.ndarray,
    labels: LabelSet,
    scale: float,
) -> None:
    """Boxes and class names, in place; a name that would cover a larger object's is left out."""
    draw, font = ImageDraw.Draw(overlay), typeface(12)
    limits = np.array([overlay.width - 1, overlay.height - 1] * 2)
    boxes = np.clip(np.asarray(instances["boxes"], float).reshape(-1, 4) * scale, 0, limits)
    boxes[:, 2:] = np.maximum(boxes[:, :2], boxes[:, 2:])
    for box, shade in zip(boxes, shades, strict=True):
        draw.rectangle(tuple(box), outline=tuple(shade), width=2)
    taken = np.zeros((overlay.height, overlay.width), bool)
    for index in np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)):
        name = labels.names[int(instances["labels"][index])]
        text = shorten(f"crowd {name}" if instances["crowd"][index] else name, 120, font)
        width = math.ceil(font.getlength(text)) + 6
        left, top = int(max(0, min(boxes[index, 0], limits[0] - width))), int(boxes[index, 1])
        for place in (top - 15, top, int(boxes[index, 3])):  # above, inside, below
            spot = np.s_[max(0, place) : place + 15, left : left + width]
            if 0 <= place <= limits[1] - 14 and not taken[spot].any():
                taken[spot] = True
                draw.rectangle((left, place, left + width, place + 14), fill=tuple(shades[index]))
                ink = "black" if shades[index] @ (0.299, 0.587, 0.114) > 130 else "white"
                draw.text((left + 3, place), text, ink, font)
                break


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
