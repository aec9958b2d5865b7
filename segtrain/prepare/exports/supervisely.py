"""Supervisely: a JSON file an image in `<data set>/ann/`, the image in `<data set>/img/`.

Its coordinates number pixels, and outlines belong to the object; so all shapes become masks.
"""

import base64
import json
import zlib
from pathlib import Path

import cv2
import numpy as np

from segtrain.dataset.files import read_bytes
from segtrain.prepare.exports.finder import ImageFinder, split_of
from segtrain.prepare.exports.model import (
    MISSING,
    Export,
    Picture,
    Segmentation,
    Shape,
    decoded_mask,
    finite,
    placed,
    told_size,
)

CLASS_FILE = "meta.json"


def is_supervisely(content: object) -> bool:
    """Whether a JSON file is that of one of Supervisely's images."""
    return isinstance(content, dict) and isinstance(content.get("size"), dict) and isinstance(
        content.get("objects"), list
    )  # fmt: skip


def read_supervisely(documents: dict[Path, dict], root: Path, images: ImageFinder) -> Export:
    """The images of a project; classes are in the order of its `meta.json`.

    Args:
        documents: their content by file.
        root: folder that image names are relative to.
        images: where images are looked for.
    """
    export = Export(f"Supervisely ({len(documents)} files)", [])
    for path, content in documents.items():
        where = path.relative_to(root).as_posix()
        folder = path.parent.parent / "img"
        file = images.find(path.stem, folder)  # a.jpg of a.jpg.json
        if file is None:
            export.drop(MISSING, where)
            continue
        told = told_size(content["size"].get("height"), content["size"].get("width"))
        known = len(export.pictures)
        picture = export.add_picture(file, root, told, where)
        if picture is None:
            continue
        if len(export.pictures) == known:
            export.drop("further files of one image", where)
            continue
        picture.splits = split_of(*path.relative_to(root).parent.parts)
        for number, entry in enumerate(content["objects"], 1):
            _add_shape(export, picture, entry, f"{where} object {number}")
    used = {shape.label for picture in export.pictures.values() for shape in picture.shapes}
    for label in (*_listed_classes(root), *sorted(used)):
        if label in used:
            export.add_class(label)
    return export


def _listed_classes(root: Path) -> list[str]:
    file = root / CLASS_FILE
    content = json.loads(read_bytes(file)) if file.is_file() else {}
    classes = content.get("classes") if isinstance(content, dict) else None
    entries = classes if isinstance(classes, list) else []
    return [str(entry.get("title")) for entry in entries if isinstance(entry, dict)]


def _add_shape(export: Export, picture: Picture, entry: dict, where: str) -> None:
    try:
        kind = entry.get("geometryType") or ("bitmap" if "bitmap" in entry else "polygon")
        segmentation = _segmentation(kind, entry, picture.size)
    except (ValueError, TypeError, KeyError, AttributeError, zlib.error) as error:
        export.drop("shapes that cannot be read", f"{where} ({error})")
        return
    label = entry.get("classTitle")
    if segmentation is None:
        export.drop(f"objects of type {kind}, which cover no area", where)
    elif not isinstance(label, str) or not label.strip():
        export.drop("shapes without a label", where)
    else:
        picture.shapes.append(Shape(label, segmentation, where))


def _segmentation(kind: str, entry: dict, size: tuple[int, int]) -> Segmentation | None:
    """None for what is no area.

    Raises:
        ValueError: a coordinate is missing or none, or the bitmap cannot be read.
    """
    if kind == "bitmap":
        packed = base64.b64decode(entry["bitmap"]["data"])
        largest = 4 * size[0] * size[1] + (1 << 20)  # what a PNG of the whole image may be
        mask = decoded_mask(zlib.decompressobj().decompress(packed, largest), size)
        left, top = finite(entry["bitmap"]["origin"])
        return placed(mask, int(left), int(top), size)
    if kind not in ("polygon", "rectangle"):
        return None
    canvas = np.zeros(size, np.uint8)
    outline = _pixels(entry["points"]["exterior"])
    if kind == "rectangle":
        (left, top), (right, bottom) = outline.min(axis=0), outline.max(axis=0)
        cv2.rectangle(canvas, (int(left), int(top)), (int(right), int(bottom)), 1, cv2.FILLED)
    elif len(outline) >= 3:
        cv2.fillPoly(canvas, [outline], 1)
        for hole in entry["points"].get("interior") or []:
            cv2.fillPoly(canvas, [_pixels(hole)], 0)
    return placed(canvas, 0, 0, size)


def _pixels(points: list) -> np.ndarray:
    """(n, 2) int32 x, y."""
    if not points:
        raise ValueError("an outline without points")
    values = np.array([finite(point) for point in points])
    if values.shape != (len(points), 2) or np.abs(values).max() > 1 << 20:
        raise ValueError("a point that is no x and y in or near the image")
    return np.rint(values).astype(np.int32)
