"""CVAT's XML 1.1: annotations of images, and tracks through the frames of a video."""

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from segtrain.dataset.files import read_bytes
from segtrain.errors import UserError
from segtrain.prepare.exports.finder import ImageFinder, split_of
from segtrain.prepare.exports.model import (
    MISSING,
    Export,
    Picture,
    Segmentation,
    Shape,
    ellipse,
    placed,
    rectangle,
    told_size,
)

AREAS = ("polygon", "box", "mask", "ellipse")
# Types that a label may be restricted to, and that cover no area.
OTHER_LABELS = ("tag", "points", "polyline", "cuboid", "skeleton")
COORDINATES = {
    "box": ("xtl", "ytl", "xbr", "ybr"),
    "ellipse": ("cx", "cy", "rx", "ry"),
    "mask": ("left", "top", "width", "height"),
}


def read_cvat(files: list[Path], root: Path, images: ImageFinder) -> Export:
    """The images of CVAT's files; shapes of one label and group are one object.

    Args:
        files: XML files of one export, of tasks or of a project.
        root: folder that image names are relative to.
        images: where images are looked for.

    Raises:
        UserError: a file is not CVAT's, or declares a document type.
    """
    documents = {path: parse_xml(path) for path in files}
    is_video = any(document.find("track") is not None for document in documents.values())
    export = Export(f"CVAT 1.1 for {'video' if is_video else 'images'}", [])
    for document in documents.values():
        for label in document.iterfind("meta//labels/label"):
            name = (label.findtext("name") or "").strip()
            part_of_skeleton = label.find("parent") is not None
            if name and not part_of_skeleton and label.findtext("type") not in OTHER_LABELS:
                export.add_class(name)
    subsets = {subset for document in documents.values() for subset in _subsets(document)}
    for path, document in documents.items():
        for entry in document.iterfind("image"):
            _add_image(export, entry, subsets, path, _task_subset(document), root, images)
        if document.find("track") is not None:
            _add_tracks(export, document, path, root, images)
    return export


def _subsets(document: Element) -> set[str]:
    """All that a file names."""
    found = {entry.get("subset", "") for entry in document.iterfind("image")}
    return (found | {_task_subset(document)}) - {""}


def _task_subset(document: Element) -> str:
    """That of the only task of a file."""
    return (document.findtext("meta/task/subset") or "").strip()


def parse_xml(path: Path) -> Element:
    """The root of an XML file without a document type, so without entities and references.

    Raises:
        UserError: it is no XML, has a document type, or its root is not `annotations`.
    """

    def refuse(*_: object) -> None:
        raise UserError(f"{path}: declares a document type, which no export needs; it is not read")

    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(read_bytes(path), True)
        root = builder.close()
    except (expat.ExpatError, ValueError, LookupError) as error:  # the latter two of encodings
        raise UserError(f"{path}: not a readable XML file ({error})") from None
    if root.tag != "annotations":
        raise UserError(f"{path}: its root is {root.tag}, that of CVAT's files is annotations")
    return root


def _add_image(
    export: Export,
    entry: Element,
    subsets: set[str],
    path: Path,
    task_subset: str,
    root: Path,
    images: ImageFinder,
) -> None:
    name, subset = entry.get("name", ""), entry.get("subset") or task_subset
    place = f"{subset}/{name}".removeprefix("/")
    where = f"{path.name}: {place}"
    file = images.find(place, path.parent)
    if file is None or _of_another_subset(file, subsets - {subset}, images):
        export.drop(MISSING, where)
        return
    known = len(export.pictures)
    picture = export.add_picture(
        file, root, _told_size(entry.get("height"), entry.get("width")), where
    )
    if picture is None:
        return
    if len(export.pictures) == known:
        export.drop("further entries of one image file", where)
        return
    picture.splits |= split_of(subset, path.stem)
    shapes = sorted(enumerate(entry, 1), key=lambda item: _layer(item[1]))
    for number, shape in shapes:
        _add_shape(export, picture, shape, shape.get("label", ""), f"{where} shape {number}")


def _of_another_subset(file: Path, others: set[str], images: ImageFinder) -> bool:
    base = images.base_of(file)
    return base is not None and not others.isdisjoint(file.relative_to(base).parent.parts)


def _add_tracks(
    export: Export, document: Element, path: Path, root: Path, images: ImageFinder
) -> None:
    """Puts the shapes of all tracks onto the frames whose images are there."""
    sides = (document.findtext(f"meta//original_size/{key}") for key in ("height", "width"))
    size = _told_size(*sides)
    frames: dict[int, Picture] = {}
    for file in images:
        numbered = re.fullmatch(r"frame_(\d{1,12})", file.stem, re.ASCII)
        picture = export.add_picture(file, root, size, file.name) if numbered else None
        if picture is None:
            continue
        other = frames.setdefault(int(numbered[1]), picture)
        if other is not picture:
            raise UserError(f"{path}: {picture.name} and {other.name} are of one frame; convert "
                            "each task on its own")  # fmt: skip
    for picture in frames.values():
        picture.splits |= split_of(_task_subset(document), path.stem)
    missing = set()
    layers = []
    for track in document.iterfind("track"):
        for frame, shape in _shown(track, sorted(frames)):
            layers.append((_layer(shape), frame, shape, track))
    for _, frame, shape, track in sorted(layers, key=lambda item: item[0]):
        where = f"{path.name}: track {track.get('id')} frame {frame}"
        if frame in frames:
            shape.set("group_id", shape.get("group_id") or track.get("group_id") or "")
            _add_shape(export, frames[frame], shape, track.get("label", ""), where)
        elif frame not in missing:
            missing.add(frame)
            export.drop(f"{MISSING} (of frames: frame_000000.png, ...)", where)


def _told_size(height: str | None, width: str | None) -> tuple[int, int] | None:
    """Height and width; None where they are not told."""
    return told_size(_whole(height), _whole(width))


def _whole(text: str | None) -> int | None:
    """A number as CVAT writes sides, frames and layers; None for anything else."""
    return int(text) if re.fullmatch(r"-?\d{1,12}", text or "", re.ASCII) else None


def _shown(track: Element, frames: list[int]) -> Iterator[tuple[int, Element]]:
    """Frame and shape wherever the object is seen; on the frames between key frames that are there
    it moves evenly."""
    numbered = (shape for shape in track if _whole(shape.get("frame")) is not None)
    shapes = sorted(numbered, key=lambda shape: int(shape.get("frame")))
    for shape, following in pairwise([*shapes, None]):
        if shape.get("outside") == "1":
            continue
        first = int(shape.get("frame"))
        yield first, shape
        if following is not None:
            last = int(following.get("frame"))
            for frame in frames[bisect_right(frames, first) : bisect_left(frames, last)]:
                yield frame, _between(shape, following, (frame - first) / (last - first))


def _between(first: Element, second: Element, share: float) -> Element:
    """The first shape, moved where both have the same numbers of coordinates."""
    moved = Element(first.tag, first.attrib)
    if first.tag != second.tag or first.tag == "mask":
        return moved
    for key in (*COORDINATES.get(first.tag, ()), "rotation", "points"):
        begin, end = (re.split(r"[,;]", shape.get(key, "")) for shape in (first, second))
        if begin != [""] and len(begin) == len(end):
            pairs = zip(map(_number, begin), map(_number, end), strict=True)
            values = [a + share * (b - a) for a, b in pairs]
            marks = re.findall(r"[,;]", first.get(key))
            text = [f"{value}{mark}" for value, mark in zip(values, [*marks, ""], strict=True)]
            moved.set(key, "".join(text))
    return moved


def _add_shape(export: Export, picture: Picture, shape: Element, label: str, where: str) -> None:
    if shape.tag not in AREAS:
        export.drop(f"annotations of type {shape.tag}, which cover no area", where)
        return
    if not label:
        export.drop("shapes without a label", where)
        return
    try:
        segmentation = _segmentation(shape, picture.size)
    except ValueError:
        export.drop("shapes that cannot be read", where)
        return
    export.add_class(label)
    group = shape.get("group_id") or None
    picture.shapes.append(Shape(label, segmentation, where, group=None if group == "0" else group))


def _segmentation(shape: Element, size: tuple[int, int]) -> Segmentation:
    if shape.tag == "polygon":
        points = [float(v) for v in re.split(r"[,;]", shape.get("points", ""))]
        return [_finite(points)]
    numbers = _finite([float(shape.get(key, "nan")) for key in COORDINATES[shape.tag]])
    turn = _finite([float(shape.get("rotation") or 0)])[0]
    if shape.tag == "mask":
        left, top, width, height = (int(number) for number in numbers)
        runs = [-1 if (run := _whole(text.strip())) is None else run
                for text in shape.get("rle", "").split(",")]  # fmt: skip
        fits = 0 <= width <= size[1] and 0 <= height <= size[0]
        if not fits or min(runs) < 0 or sum(runs) != width * height:
            raise ValueError("the runs do not fill the box")
        values = np.arange(len(runs)) % 2  # row by row, the first run is outside
        mask = np.repeat(values, runs).reshape(height, width).astype(np.uint8)
        return placed(mask, left, top, size)
    return (rectangle if shape.tag == "box" else ellipse)(*numbers, turn)


def _number(text: str) -> float:
    """NaN, which is refused where shapes are made, of what is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _finite(numbers: list[float]) -> list[float]:
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a coordinate is missing or not finite")
    return numbers


def _layer(shape: Element) -> int:
    return _whole(shape.get("z_order")) or 0
