"""LabelMe: a JSON file an image, with polygons, rectangles, circles and masks.

LabelMe draws its shapes with Pillow, whose outlines are a pixel wide and belong to the object; by
COCO's rule objects would be half a pixel smaller all around. So they become masks here.
"""

import base64
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from segtrain.dataset.coco_entries import FARTHEST
from segtrain.dataset.files import read_lines
from segtrain.errors import UserError
from segtrain.prepare.exports.finder import IMAGE_ENDINGS, ImageFinder, split_of
from segtrain.prepare.exports.model import (
    MISSING,
    Export,
    Picture,
    Segmentation,
    Shape,
    decoded_mask,
    placed,
    told_size,
)

# Corners all around; rectangles have two or four, turned ones their own names in LabelMe and in
# X-AnyLabeling.
OUTLINES = ("polygon", "rectangle", "oriented_rectangle", "rotation", "quadrilateral")
CLASS_FILES = ("labels.txt", "class_names.txt", "classes.txt")


def is_labelme(content: object) -> bool:
    """Whether a JSON file is one of LabelMe's."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and (
        any(key in content for key in ("imagePath", "imageData", "imageHeight"))
    )  # fmt: skip


def read_labelme(documents: dict[Path, dict], root: Path, images: ImageFinder) -> Export:
    """The images of LabelMe's files.

    Classes are in the order of `labels.txt`, where there is one in the folder, then of their
    names. Objects labelled `__ignore__` become void, those of `_background_` background.

    Args:
        documents: their content by file.
        root: folder that image names are relative to.
        images: where images are looked for.

    Raises:
        UserError: two files are of one image.
    """
    export = Export(f"LabelMe ({len(documents)} files)", _listed_classes(root))
    owners: dict[str, Path] = {}
    for path, content in documents.items():
        picture = _picture(export, path, content, root, images)
        if picture is None:
            continue
        if picture.name in owners:
            raise UserError(f"{path} and {owners[picture.name]} are of one image, {picture.name}; "
                            "convert the folder of one of them")  # fmt: skip
        owners[picture.name] = path
        picture.splits = split_of(*path.relative_to(root).parent.parts)
        for number, shape in enumerate(content["shapes"], 1):
            _add_shape(export, picture, shape, f"{path.name} shape {number}")
    used = {shape.label for picture in export.pictures.values() for shape in picture.shapes}
    for label in sorted(used):
        export.add_class(label)
    return export


def _listed_classes(root: Path) -> list[str]:
    file = next((root / name for name in CLASS_FILES if (root / name).is_file()), None)
    return list(dict.fromkeys(read_lines(file))) if file else []


def _picture(
    export: Export, path: Path, content: dict, root: Path, images: ImageFinder
) -> Picture | None:
    """The image where its path says, elsewhere, inside the file, or beside it under the file's
    name; None, and noted, where there is none."""
    told = told_size(content.get("imageHeight"), content.get("imageWidth"))
    named = str(content.get("imagePath") or path.stem)
    where = path.relative_to(root).as_posix()
    file = images.find(named, path.parent)
    if file is None:
        try:
            data = base64.b64decode(content.get("imageData") or "", validate=True)
        except (TypeError, ValueError):
            data = b""
        if data:
            ending = Path(named).suffix.lower()
            ending = ending if ending in IMAGE_ENDINGS else ".png"
            return export.add_content(Path(where).with_suffix(ending).as_posix(), data, told, where)
        beside = [path.with_suffix(ending) for ending in IMAGE_ENDINGS]
        file = next((place for place in beside if place.is_file()), None)
    if file is None:
        export.drop(MISSING, f"{where}: {named}")
        return None
    return export.add_picture(file, root, told, where)


def _add_shape(export: Export, picture: Picture, shape: dict, where: str) -> None:
    try:
        kind = shape.get("shape_type") or "polygon"
        points = [(float(x), float(y)) for x, y in shape["points"]]
        segmentation = _segmentation(kind, points, shape.get("mask"), picture.size)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        export.drop("shapes that cannot be read", where)
        return
    if segmentation is None:
        export.drop(f"shapes of type {kind}, which cover no area", where)
        return
    label = str(shape.get("label") or "").strip()
    if not label:
        export.drop("shapes without a label", where)
        return
    group = shape.get("group_id")
    picture.shapes.append(Shape(label, segmentation, where, group=group))


def _segmentation(
    kind: str, points: list[tuple[float, float]], mask: str | None, size: tuple[int, int]
) -> Segmentation | None:
    """None for shapes without an area.

    Raises:
        ValueError: the shape is not what its type says, or lies far outside its image.
    """
    if not all(abs(value) <= FARTHEST * max(size) for point in points for value in point):
        raise ValueError("a coordinate is not in or near the image")
    if kind == "mask":
        return _placed_mask(points, mask, size)
    canvas = Image.new("1", size[::-1])
    draw = ImageDraw.Draw(canvas)
    if kind == "rectangle" and len(points) == 2:
        (x1, y1), (x2, y2) = points
        draw.rectangle((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), fill=1)
    elif kind == "circle":
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1, outline=1)
    elif kind in OUTLINES and len(points) >= 3:
        draw.polygon(points, fill=1, outline=1)
    else:
        return None
    return placed(np.asarray(canvas), 0, 0, size)


def _placed_mask(
    points: list[tuple[float, float]], mask: str | None, size: tuple[int, int]
) -> Segmentation:
    """A mask that fills the box between two corners, both included."""
    (left, top), (right, bottom) = points
    drawn = decoded_mask(base64.b64decode(mask or ""), size)
    for whole in (int, round):
        x, y = whole(left), whole(top)
        if drawn.shape == (whole(bottom) - y + 1, whole(right) - x + 1):
            return placed(drawn, x, y, size)
    raise ValueError("the mask does not fill its box")
