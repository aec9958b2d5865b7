"""What every export of an annotation tool is read into."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from segtrain.dataset.coco_annotations import LARGEST_IMAGE
from segtrain.dataset.files import upright_size
from segtrain.dataset.orientation import explain_turn, open_image
from segtrain.errors import UserError
from segtrain.masks import encode

MISSING = "images that are not there"  # a reason that more than one reader has
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
    splits: frozenset[str] = frozenset()
    shapes: list[Shape] = field(default_factory=list)


@dataclass
class Export:
    """An export as it was read.

    Args:
        kind: what it is, for people.
        classes: names, in their order.
        pictures: by name.
        dropped: reason -> where in the export.
        noted: what was not dropped but may surprise -> where.
        unpacked: folder of an archive's files, which is removed with this object.
    """

    kind: str
    classes: list[str]
    pictures: dict[str, Picture] = field(default_factory=dict)
    dropped: dict[str, list[str]] = field(default_factory=dict)
    noted: dict[str, list[str]] = field(default_factory=dict)
    unpacked: TemporaryDirectory | None = None

    def drop(self, reason: str, where: str) -> None:
        """Notes what is not converted."""
        self.dropped.setdefault(reason, []).append(where)

    def note(self, fact: str, where: str) -> None:
        """Notes what is converted otherwise than it may seem."""
        self.noted.setdefault(fact, []).append(where)

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
        return self._add(place.as_posix().removeprefix("images/"), file, told, where)

    def add_content(
        self, name: str, content: bytes, told: tuple[int, int] | None, where: str
    ) -> Picture | None:
        """As `add_picture`, of an image that the export holds."""
        return self._add(name, content, told, where)

    def _add(
        self, name: str, file: Path | bytes, told: tuple[int, int] | None, where: str
    ) -> Picture | None:
        place, number = Path(name), 1
        while name in self.pictures and self.pictures[name].file != file:
            number += 1
            name = place.with_name(f"{place.stem}_{number}{place.suffix}").as_posix()
        if name in self.pictures:
            return self.pictures[name]
        try:
            size = upright_size(file)
        except UserError:
            size = (0, 0)
        if not 0 < size[0] * size[1] <= LARGEST_IMAGE:
            self.drop("images that cannot be read", where)
            return None
        if told is not None and told != size:
            sizes = f"{size[1]}x{size[0]}, not {told[1]}x{told[0]}"
            if isinstance(file, Path) and explain_turn(file, size, told):
                sizes += ", as before it is turned upright by its EXIF orientation"
            self.drop("images of another size than the export says", f"{where} ({sizes})")
            return None
        self.pictures[name] = Picture(name, file, size)
        return self.pictures[name]


def told_size(height: object, width: object) -> tuple[int, int] | None:
    """Height and width as an export says them; None where it says no whole numbers above 0."""
    sides = [int(side) if isinstance(side, float) and side.is_integer() else side
             for side in (height, width)]  # fmt: skip
    whole = all(isinstance(side, int) and side > 0 for side in sides)
    return (sides[0], sides[1]) if whole else None


def rectangle(
    left: float,
    top: float,
    right: float,
    bottom: float,
    degrees: float = 0.0,
    pivot: tuple[float, float] | None = None,
) -> Segmentation:
    """A box, turned clockwise around its centre or another pivot."""
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    x, y = pivot or ((left + right) / 2, (top + bottom) / 2)
    return [_turned(corners, x, y, degrees)]


def ellipse(
    x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0.0
) -> Segmentation:
    """An ellipse of `ROUND` corners, turned clockwise around its centre."""
    angles = [2 * math.pi * step / ROUND for step in range(ROUND)]
    points = [(x + radius_x * math.cos(a), y + radius_y * math.sin(a)) for a in angles]
    return [_turned(points, x, y, degrees)]


def finite(values: Iterable[object]) -> list[float]:
    """Numbers of an export.

    Raises:
        ValueError: one is missing, no number or not finite.
    """
    numbers = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
            raise ValueError(f"{str(value)[:20]} is no coordinate")
        numbers.append(float(value))
    return numbers


def decoded_mask(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """(h, w) bool of an image file of at most `size` (H, W): what is not transparent, and where
    nothing can be, what is not black.

    Raises:
        ValueError: it is no image file, or larger.
    """
    try:
        with open_image(BytesIO(data)) as image:
            if image.height > size[0] or image.width > size[1]:
                raise ValueError("a mask larger than its image")
            has_alpha = "A" in image.getbands() or "transparency" in image.info
            shown = image.convert("RGBA").getchannel("A") if has_alpha else image.convert("L")
            return np.asarray(shown) > 0
    except (OSError, SyntaxError) as error:
        raise ValueError(f"no readable mask ({error})") from None


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
