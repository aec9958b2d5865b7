"""One annotation of a COCO JSON file: checked, and what the file leaves out derived."""

import math
from typing import NamedTuple

import numpy as np
from pycocotools import mask as rle

FARTHEST = 100  # times the image's longer side: pycocotools walks along edges pixel by pixel


class Instance(NamedTuple):
    """An annotation as it is stored."""

    box: tuple[float, float, float, float]  # x1 y1 x2 y2, inside the image
    area: float  # pixels, as the file counts them where it does
    crowd: bool
    code: bytes  # of the transposed mask, compressed


class Fault(NamedTuple):
    """Why an annotation is none.

    Args:
        reason: goes on after the annotation's name.
        empty: whether it merely shows nothing, and so can be left out.
    """

    reason: str
    empty: bool


def read_instance(entry: dict, height: int, width: int) -> Instance | Fault:
    """What an annotation says of an image of `height` and `width`.

    A missing box is that of the outline, a missing area that of the mask, and what is not said to
    be a crowd is none.
    """
    try:
        code = encode_segmentation(entry.get("segmentation"), height, width)
        box = _clipped_box(entry.get("bbox"), code, entry["segmentation"], height, width)
        area, crowd = entry.get("area"), entry.get("iscrowd") or 0
        if area is not None and not (_is_number(area) and math.isfinite(area) and area >= 0):
            raise ValueError(f"has area {area!r}, expected a number of pixels")
        if crowd not in (0, 1):
            raise ValueError(f"has iscrowd {crowd!r}, expected 0 or 1")
    except ValueError as error:
        return Fault(str(error), empty=False)
    if entry["segmentation"] == []:
        return Fault("has an empty segmentation", empty=True)
    if code is None or box is None:
        return Fault("has no pixel in its image", empty=True)
    transposed = rle.encode(np.asfortranarray(rle.decode(code).T))["counts"]
    return Instance(box, float(rle.area(code) if area is None else area), bool(crowd), transposed)


def encode_segmentation(segmentation: list | dict | None, height: int, width: int) -> dict | None:
    """Compressed run-length code of polygons, of an uncompressed code or of a compressed one.

    None where no polygon has three points; pycocotools would take four numbers for a box.

    Raises:
        ValueError: it is none of the three, or does not fit an image of this size.
    """
    if segmentation is None:
        raise ValueError("has no segmentation; a box alone tells no mask, expected polygons or RLE")
    if isinstance(segmentation, dict):
        return _checked_code(segmentation, height, width)
    if not isinstance(segmentation, list):
        raise ValueError(f"has a segmentation of type {type(segmentation).__name__}, "
                         "expected polygons or RLE")  # fmt: skip
    polygons = _as_polygons(segmentation)
    for polygon in polygons:
        _check_polygon(polygon, FARTHEST * max(height, width))
    usable = [polygon for polygon in polygons if len(polygon) >= 6]
    return rle.merge(rle.frPyObjects(usable, height, width)) if usable else None


def _as_polygons(segmentation: list) -> list[list]:
    """A flat list of numbers is one polygon."""
    if segmentation and not isinstance(segmentation[0], list):
        return [segmentation]
    return segmentation


def _check_polygon(polygon: object, farthest: float) -> None:
    try:
        numbers = np.asarray(polygon)
    except ValueError:  # lists of different lengths in one another
        numbers = np.array(None)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iuf":
        raise ValueError("has a polygon that is no list of numbers x1, y1, x2, y2, ...")
    if len(numbers) % 2:
        raise ValueError(f"has a polygon of {len(numbers)} numbers, expected pairs of x and y")
    outside = ~(np.abs(numbers) <= farthest)  # and what is no number at all
    if outside.any():
        raise ValueError(f"has a polygon with the coordinate {numbers[outside][0]}, expected one "
                         "in or near its image")  # fmt: skip


def _checked_code(segmentation: dict, height: int, width: int) -> dict:
    """The compressed code of any RLE whose runs fill the image."""
    counts, size = segmentation.get("counts"), segmentation.get("size")
    if size != [height, width]:
        raise ValueError(f"has an RLE of size {size}, expected [{height}, {width}]: height and "
                         "width of its image")  # fmt: skip
    compressed = isinstance(counts, str)
    runs = decompressed(counts) if compressed else counts
    if not isinstance(runs, list) or not all(isinstance(run, int) and run >= 0 for run in runs):
        raise ValueError("has an RLE whose counts are no runs of pixels")
    if sum(runs) != height * width:
        raise ValueError(f"has an RLE whose counts add up to {sum(runs)} pixels, expected "
                         f"{height * width} ({height} x {width})")  # fmt: skip
    if compressed:
        return {"size": size, "counts": counts.encode()}
    return rle.frPyObjects({"size": size, "counts": runs}, height, width)


def decompressed(text: str) -> list[int]:
    """The runs of COCO's compressed code; pycocotools would read one that is cut beyond its end.

    Six bits a character, the sixth says that the number goes on; from the third run on, each is
    its difference to the one before the last.

    Raises:
        ValueError: it is no such code.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("has an RLE whose counts are no compressed code")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("has an RLE whose counts end amid a number")
    return runs


def _clipped_box(
    bbox: list | None, code: dict | None, segmentation: list | dict, height: int, width: int
) -> tuple[float, float, float, float] | None:
    """The part of the box that lies in the image; None where there is none."""
    if bbox and not (
        isinstance(bbox, list)
        and len(bbox) == 4
        and all(_is_number(side) and math.isfinite(side) for side in bbox)
    ):
        raise ValueError(f"has bbox {bbox}, expected four finite numbers x, y, width, height")
    if code is None:
        return None
    if not bbox or (bbox[2] <= 0 and bbox[3] <= 0):
        bbox = _outline_box(code, segmentation)
    left, top, box_width, box_height = bbox
    box = (max(left, 0), max(top, 0), min(left + box_width, width), min(top + box_height, height))
    return None if box[2] <= box[0] or box[3] <= box[1] else box


def _outline_box(code: dict, segmentation: list | dict) -> list[float]:
    """x, y, width and height of a mask; of polygons to a fraction of a pixel, as COCO's are."""
    if isinstance(segmentation, dict):
        return rle.toBbox(code).tolist()
    usable = [polygon for polygon in _as_polygons(segmentation) if len(polygon) >= 6]
    x, y = ([v for polygon in usable for v in polygon[axis::2]] for axis in (0, 1))
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
