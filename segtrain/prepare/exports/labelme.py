"""LabelMe: a JSON file an image, with polygons, rectangles, circles and masks.

LabelMe draws its shapes with Pillow, whose outlines are a pixel wide and belong to the object; by
COCO's rule objects would be half a pixel smaller all around. So they become masks here.
"""

import base64
import binascii
import math
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from segtrain.dataset.coco_entries import FARTHEST
from segtrain.dataset.orientation import open_image
from segtrain.errors import UserError
from segtrain.prepare.exports.model import (
    Export,
    ImageFinder,
    Picture,
    Segmentation,
    Shape,
    placed,
    split_of,
)

CLASS_FILES = ("labels.txt", "class_names.txt", "classes.txt")


def is_labelme(content: object) -> bool:
    """Whether a JSON file is one of LabelMe's."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and (
        "imagePath" in content
    )  # fmt: skip


def read_labelme(documents: dict[Path, dict], root: Path, images: ImageFinder) -> Export:
    """The images of LabelMe's files.

    Classes are in the order of `labels.txt`, where there is one in the folder, else of their
    names. Objects labelled `__ignore__` become void, those of `_background_` background.

    Args:
        documents: their content by file.
        root: folder that image names are relative to.
        images: where images are looked for.

    Raises:
        UserError: two files are of one image.
    """
    export = Export(f"LabelMe ({len(documents)} files)", _classes(documents, root))
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
    return export


def _classes(documents: dict[Path, dict], root: Path) -> list[str]:
    for name in CLASS_FILES:
        if (root / name).is_file():
            lines = (root / name).read_text("utf-8-sig").splitlines()
            return list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    found = {str(s.get("label")) for content in documents.values() for s in content["shapes"]
             if isinstance(s, dict)}  # fmt: skip
    return sorted(found)


def _picture(
    export: Export, path: Path, content: dict, root: Path, images: ImageFinder
) -> Picture | None:
    """The image beside the file, elsewhere, or inside it; None, and noted, where there is none."""
    told = content.get("imageHeight"), content.get("imageWidth")
    told = told if all(isinstance(side, int) for side in told) else None
    file = images.find(str(content["imagePath"]), path.parent)
    if file is not None:
        return export.add_picture(file, root, told, str(path.relative_to(root)))
    try:
        data = base64.b64decode(content.get("imageData") or "", validate=True)
    except (TypeError, binascii.Error):
        data = b""
    if not data:
        export.drop("images that are not there", f"{path.name}: {content['imagePath']}")
        return None
    ending = Path(str(content["imagePath"])).suffix or ".png"
    name = path.relative_to(root).with_suffix(ending).as_posix()
    return export.add_content(name, data, told, path.name)


def _add_shape(export: Export, picture: Picture, shape: dict, where: str) -> None:
    try:
        kind = shape.get("shape_type") or "polygon"
        points = [(float(x), float(y)) for x, y in shape["points"]]
        segmentation = _segmentation(kind, points, shape.get("mask"), picture.size)
    except (ValueError, TypeError, KeyError, AttributeError, OSError, SyntaxError, IndexError):
        export.drop("shapes that cannot be read", where)
        return
    if segmentation is None:
        export.drop(f"shapes of type {kind}, which cover no area", where)
        return
    label = str(shape.get("label") or "").strip()
    if not label:
        export.drop("shapes without a label", where)
        return
    export.add_class(label)
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
    if kind == "mask" and mask:
        (x1, y1), (x2, y2) = points
        with open_image(BytesIO(base64.b64decode(mask))) as image:
            if image.size != (round(x2) - round(x1) + 1, round(y2) - round(y1) + 1):
                raise ValueError("the mask does not fill its box")
            return placed((np.asarray(image.convert("L")) > 0), round(x1), round(y1), size)
    canvas = Image.new("1", size[::-1])
    draw = ImageDraw.Draw(canvas)
    if kind == "rectangle" and len(points) == 2:
        (x1, y1), (x2, y2) = points
        draw.rectangle((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), fill=1)
    elif kind == "circle":
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1, outline=1)
    elif kind in ("polygon", "rectangle", "oriented_rectangle") and len(points) >= 3:
        draw.polygon(points, fill=1, outline=1)
    else:
        return None
    return placed(np.asarray(canvas), 0, 0, size)
