"""VIA 1 and 2, the VGG Image Annotator: one JSON file of the regions of all images."""

import math
from collections import Counter
from itertools import chain
from pathlib import Path

from segtrain.errors import UserError
from segtrain.prepare.exports.finder import ImageFinder
from segtrain.prepare.exports.model import (
    MISSING,
    Export,
    Segmentation,
    Shape,
    ellipse,
    finite,
    rectangle,
)

PROJECT = "_via_img_metadata"  # key of the images where the project was saved, not its annotations
# Attributes that hold the class where regions have several, the likeliest first.
CLASS_ATTRIBUTES = ("class", "label", "category", "name", "type", "object")


def is_via(content: object) -> bool:
    """Whether a JSON file is one of VIA's."""
    if not isinstance(content, dict):
        return False
    entries = content.get(PROJECT, content)
    return isinstance(entries, dict) and (PROJECT in content or bool(entries)) and all(
        isinstance(entry, dict) and {"filename", "regions"} <= entry.keys()
        for entry in entries.values()
    )  # fmt: skip


def read_via(documents: dict[Path, dict], root: Path, images: ImageFinder) -> Export:
    """The images of VIA's files.

    The class is the attribute of the regions, of several the one that is called so. Where regions
    have no attribute at all, they are of one class, `object`.

    Args:
        documents: their content by file.
        root: folder that image names are relative to.
        images: where images are looked for.

    Raises:
        UserError: regions have several attributes, and none is called as the class may be.
    """
    export = Export(f"VIA ({len(documents)} files)", [])
    entries = [
        (path, entry)
        for path, content in documents.items()
        for entry in content.get(PROJECT, content).values()
    ]
    attribute = _class_attribute([path for path, _ in entries], [_regions(e) for _, e in entries])
    if attribute is None:
        for path in documents:
            export.note("files whose regions have no attribute, so one class", path.name)
    for path, entry in entries:
        name = str(entry["filename"])
        where = f"{path.name}: {name}"
        file = images.find(name, path.parent)
        if file is None:
            export.drop(MISSING, where)
            continue
        known = len(export.pictures)
        picture = export.add_picture(file, root, None, where)
        if picture is None:
            continue
        if len(export.pictures) == known:
            export.drop("further entries of one image file", where)
            continue
        for number, region in enumerate(_regions(entry), 1):
            place = f"{where} region {number}"
            label = _label(region.get("region_attributes"), attribute) if attribute else "object"
            shape = region.get("shape_attributes")
            try:
                segmentation = _segmentation(shape if isinstance(shape, dict) else {})
            except (ValueError, TypeError) as error:
                export.drop("shapes that cannot be read", f"{place} ({error})")
                continue
            if segmentation is None:
                export.drop("regions that cover no area", place)
            elif not label:
                export.drop("shapes without a label", place)
            else:
                export.add_class(label)
                picture.shapes.append(Shape(label, segmentation, place))
    return export


def _regions(entry: dict) -> list[dict]:
    regions = entry["regions"]
    regions = list(regions.values()) if isinstance(regions, dict) else regions
    found = regions if isinstance(regions, list) else []
    return [region for region in found if isinstance(region, dict)]


def _class_attribute(paths: list[Path], regions: list[list[dict]]) -> str | None:
    """The attribute of the regions that is the class; None where there is none."""
    counts: Counter[str] = Counter()
    for region in chain.from_iterable(regions):
        attributes = region.get("region_attributes")
        if isinstance(attributes, dict):
            counts.update(str(name) for name in attributes)
    if len(counts) < 2:
        return next(iter(counts), None)
    named = [name for wanted in CLASS_ATTRIBUTES for name in counts if name.lower() == wanted]
    if not named:
        raise UserError(f"{paths[0]}: regions have the attributes {', '.join(counts)}, none of "
                        f"which is called {', '.join(CLASS_ATTRIBUTES)}; rename the one that "
                        "holds the class")  # fmt: skip
    return named[0]


def _label(attributes: object, name: str | None) -> str:
    """The value, or the only box that is ticked."""
    value = attributes.get(name) if isinstance(attributes, dict) else None
    if isinstance(value, dict):
        ticked = [str(option) for option, is_ticked in value.items() if is_ticked is True]
        value = ticked[0] if len(ticked) == 1 else ""
    is_name = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value).strip() if is_name else ""


def _segmentation(shape: dict) -> Segmentation | None:
    """None for what is no area.

    Raises:
        ValueError: a coordinate is missing or none.
    """
    kind = shape.get("name")

    def numbers(*keys: str) -> list[float]:
        return finite(shape.get(key) for key in keys)

    if kind == "polygon":
        pairs = zip(finite(shape.get("all_points_x") or []),
                    finite(shape.get("all_points_y") or []), strict=True)  # fmt: skip
        return [[value for pair in pairs for value in pair]]
    if kind == "rect":
        x, y, width, height = numbers("x", "y", "width", "height")
        return rectangle(x, y, x + width, y + height)
    if kind == "circle":
        x, y, radius = numbers("cx", "cy", "r")
        return ellipse(x, y, radius, radius)
    if kind == "ellipse":
        x, y, across, down = numbers("cx", "cy", "rx", "ry")
        return ellipse(x, y, across, down, math.degrees(finite([shape.get("theta") or 0])[0]))
    return None
