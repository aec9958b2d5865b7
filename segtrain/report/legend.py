"""Predicted labels over their image, with a legend of the classes below it."""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segtrain.label_set import LabelSet
from segtrain.report.drawing import fit, paint_regions, shorten, typeface

INK, OUTLINE = "#1d1f23", "#6a6f78"
FONT_SHARE = 40  # of the picture's width
FONT_SIZES = (13, 26)  # pixels, least and most
BACKGROUND = "background"  # the class that is left unpainted: what is none of the others


class Entry(NamedTuple):
    """One class of a legend."""

    text: str
    colour: tuple[int, int, int] | None  # None: there is no swatch


def paint_labels(
    image: np.ndarray, labels: np.ndarray, label_set: LabelSet, side: int
) -> np.ndarray:
    """Classes over an image, in their colours and outlined.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8 train ids.
        label_set: the classes.
        side: the longer side of the picture, in pixels.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    painted = np.array([name != BACKGROUND for name in label_set.names])
    colours = np.array(label_set.palette, np.uint8)
    picture = image if side == max(image.shape[:2]) else fit(image, side)
    return paint_regions(picture, labels, colours, np.zeros(len(painted), bool), painted)


def with_legend(picture: np.ndarray, entries: list[Entry], lines: int | None) -> np.ndarray:
    """The picture on a white sheet with swatches and texts below it.

    Args:
        picture: (h, w, 3) uint8 RGB.
        entries: in this order, left to right and line by line.
        lines: how many there are in any case, as in a video, whose frames have one size; None for
            as many as are needed. Entries that do not fit are counted at the end.

    Returns:
        (h', w', 3) uint8 RGB; wider than the picture where that is too narrow for a text.
    """
    size = int(np.clip(picture.shape[1] / FONT_SHARE, *FONT_SIZES))
    font, step = typeface(size), math.ceil(size * 1.6)
    width = max(picture.shape[1], 12 * size)
    places, used = _arrange(entries, width, size, lines, font)
    height = (used if lines is None else lines) * step + size // 2
    sheet = Image.new("RGB", (width, picture.shape[0] + height), "white")
    sheet.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(sheet)
    for entry, left, line in places:
        top = picture.shape[0] + size // 2 + line * step
        if entry.colour is not None:
            draw.rectangle((left, top, left + size, top + size), entry.colour, OUTLINE)
            left += math.ceil(1.4 * size)
        draw.text((left, top + size / 2), entry.text, INK, font, anchor="lm")
    return np.asarray(sheet)


def _arrange(
    entries: list[Entry], width: int, size: int, lines: int | None, font: ImageFont.FreeTypeFont
) -> tuple[list[tuple[Entry, int, int]], int]:
    """Entries with their left side and line, and the number of lines."""
    gap, left, line = size // 2, size // 2, 0
    places: list[tuple[Entry, int, int]] = []
    for number, entry in enumerate(entries):
        text = shorten(entry.text, width - 4 * size, font)
        needed = math.ceil(1.4 * size + font.getlength(text)) + 2 * gap
        rest = f"+{len(entries) - number}"
        last = lines is not None and line == lines - 1
        room = math.ceil(font.getlength(rest)) + gap if last and number < len(entries) - 1 else 0
        if left > gap and left + needed + room > width:
            if last:
                places.append((Entry(rest, None), left, line))
                break
            left, line = gap, line + 1
        places.append((Entry(text, entry.colour), left, line))
        left += needed
    return places, line + 1 if entries else 0
