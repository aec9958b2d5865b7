"""What every export of an annotation tool is read into, and where its images are looked for."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segtrain.dataset.coco_annotations import LARGEST_IMAGE
from segtrain.dataset.files import upright_size
from segtrain.errors import UserError
from segtrain.masks import encode

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
ROUND = 72  # corners of the polygon that stands for a circle or an ellipse

Segmentation = list | dict  # polygons or a run-length code, as COCO writes them


@dataclass
class Shape:
    """One outline or mask.

    Args:
        label: class name.
        segmentation: of it, in pixels of the upright image.
        where: it stands in the export, for messages.
        crowd: whether it is a region of many objects.
        group: shapes of one label and group are one object; None for an object of its own.
    """

    label: str
    segmentation: Segmentation
    where: str
    crowd: bool = False
    group: int | str | None = None


@dataclass
class Picture:
    """One image and its shapes, the lowest first.

    Args:
        name: path relative to the folder of all images, unique.
        file: the image; or its content where the export holds it.
        size: height and width, upright.
        splits: that the export puts it into; none where it has no splits.
    """

    name: str
    file: Path | bytes
    size: tuple[int, int]
    splits: set[str] = field(default_factory=set)
    shapes: list[Shape] = field(default_factory=list)


@dataclass
class Export:
    """An export as it was read.

    Args:
        kind: what it is, for people.
        classes: names, in their order.
        pictures: by name.
        dropped: reason -> where in the export.
    """

    kind: str
    classes: list[str]
    pictures: dict[str, Picture] = field(default_factory=dict)
    dropped: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, where: str) -> None:
        """Notes what is not converted."""
        self.dropped.setdefault(reason, []).append(where)

    def add_class(self, name: str) -> None:
        """Appends a class unless it is there."""
        if name not in self.classes:
            self.classes.append(name)

    def add_picture(
        self, file: Path, base: Path, told: tuple[int, int] | None, where: str
    ) -> Picture | None:
        """The picture of an image file, which is added where it is new; None, and noted, where it
        cannot be read or is not of the size that the export tells.

        Args:
            file: the image.
            base: folder that its name is relative to, if it lies there.
            told: height and width as the export says; None where it does not.
            where: it stands in the export.
        """
        file, base = file.resolve(), base.resolve()
        inside = file.is_relative_to(base)
        place = file.relative_to(base) if inside else Path(file.parent.name, file.name)
        name, number = place.as_posix().removeprefix("images/"), 1
        while name in self.pictures and self.pictures[name].file != file:
            number += 1
            name = place.with_name(f"{place.stem}_{number}{place.suffix}").as_posix()
        return self.pictures.get(name) or self.add_content(name, file, told, where)

    def add_content(
        self, name: str, file: Path | bytes, told: tuple[int, int] | None, where: str
    ) -> Picture | None:
        """As `add_picture`, of a new picture whose name is known and which may be no file."""
        try:
            size = upright_size(file)
        except UserError:
            size = (0, 0)
        if not 0 < size[0] * size[1] <= LARGEST_IMAGE:
            self.drop("images that cannot be read", where)
            return None
        if told is not None and told != size:
            self.drop("images of another size than the export says",
                      f"{where} ({size[1]}x{size[0]}, not {told[1]}x{told[0]})")  # fmt: skip
            return None
        self.pictures[name] = Picture(name, file, size)
        return self.pictures[name]


class ImageFinder:
    """Image files by the names that an export calls them.

    Args:
        folders: that are searched with their sub-folders; the first has precedence.
    """

    def __init__(self, folders: list[Path]) -> None:
        self.folders = folders
        self.by_name: dict[str, list[Path]] = {}
        for folder in folders:
            for path in sorted(folder.rglob("*")):
                if path.suffix.lower() in IMAGE_ENDINGS and path.is_file():
                    self.by_name.setdefault(path.name, []).append(path)

    def find(self, name: str, *nearest: Path) -> Path | None:
        """The file whose path ends as `name` does, below one of the nearest folders if there is
        one, else wherever there is exactly one."""
        parts = [part for part in re.split(r"[\\/]+", name) if part not in ("", ".", "..")]
        if not parts:
            return None
        for folder in (*nearest, *self.folders):
            for place in (folder / name, folder / "images" / name):
                if place.suffix.lower() in IMAGE_ENDINGS and place.is_file():
                    return place
        found = self.by_name.get(parts[-1], [])
        for length in range(len(parts), 0, -1):
            alike = [path for path in found if list(path.parts[-length:]) == parts[-length:]]
            near = [path for path in alike if any(path.is_relative_to(f) for f in nearest)]
            if len(near or alike) == 1:
                return (near or alike)[0]
        return None

    def base_of(self, file: Path) -> Path:
        """The folder it was found below."""
        return next(folder for folder in self.folders if file.is_relative_to(folder))

    def __iter__(self) -> Iterator[Path]:
        """All image files."""
        return (path for paths in self.by_name.values() for path in paths)


def split_of(*texts: str) -> set[str]:
    """The split that one of the texts names as a word, the first that does; or none."""
    for text in texts:
        for word in re.findall(r"[a-z]+", text.lower()):
            if word in SPLITS:
                return {SPLITS[word]}
    return set()


def rectangle(
    left: float, top: float, right: float, bottom: float, degrees: float = 0.0
) -> Segmentation:
    """A box, turned clockwise around its centre."""
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return [_turned(corners, (left + right) / 2, (top + bottom) / 2, degrees)]


def ellipse(
    x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0.0
) -> Segmentation:
    """An ellipse of `ROUND` corners, turned clockwise around its centre."""
    angles = [2 * math.pi * step / ROUND for step in range(ROUND)]
    points = [(x + radius_x * math.cos(a), y + radius_y * math.sin(a)) for a in angles]
    return [_turned(points, x, y, degrees)]


def placed(mask: np.ndarray, left: int, top: int, size: tuple[int, int]) -> Segmentation:
    """Run-length code of a mask (h, w) whose corner lies at a place of an image of `size` (H, W).

    What lies outside the image is lost.
    """
    above, before = max(-top, 0), max(-left, 0)
    crop = mask[above : max(size[0] - top, 0), before : max(size[1] - left, 0)].astype(np.uint8)
    whole = np.zeros(size, np.uint8)
    whole[max(top, 0) :, max(left, 0) :][: crop.shape[0], : crop.shape[1]] = crop
    return {"size": list(size), "counts": encode(whole[None])[0].decode()}


def _turned(points: list[tuple[float, float]], x: float, y: float, degrees: float) -> list[float]:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned = (
        (x + (px - x) * cosine - (py - y) * sine, y + (px - x) * sine + (py - y) * cosine)
        for px, py in points
    )
    return [value for point in turned for value in point]
