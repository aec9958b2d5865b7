"""YOLO segmentation: `data.yaml`, images, and a text file of outlines an image."""

import math
from pathlib import Path

import yaml

from segtrain.errors import UserError
from segtrain.prepare.exports.model import IMAGE_ENDINGS, Export, ImageFinder, Picture, Shape

KIND = "YOLO segmentation"
OUTSIDE = 0.1  # of the side that an outline may reach beyond the image


def read_yolo(path: Path, images: ImageFinder) -> Export:
    """The images of `train`, `val` and `test` of a `data.yaml`; or, of a `classes.txt`, those of
    `images/` beside it.

    Args:
        path: the file.
        images: where images of lists are looked for that are not where their paths say.

    Raises:
        UserError: the file is not what it should be, or a folder it names is missing.
    """
    if path.name == "classes.txt":
        names = [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
        export = Export(KIND, names)
        files = _listed(export, path.parent / "images", path.parent, images)
        _add_images(export, files, path.parent, set(), names)
        return export
    try:
        content = yaml.safe_load(path.read_bytes())
        listed = content["names"]
        pairs = listed.items() if isinstance(listed, dict) else enumerate(listed)
        names_by_number = {int(number): str(name) for number, name in pairs}
    except (yaml.YAMLError, TypeError, KeyError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not a data.yaml of YOLO ({error})") from None
    numbers = sorted(names_by_number)
    if numbers != list(range(len(numbers))):
        raise UserError(f"{path}: names are numbered {numbers}, expected 0 to {len(numbers) - 1}")
    names = [names_by_number[number] for number in numbers]
    export = Export(KIND, list(dict.fromkeys(names)))
    base = path.parent / str(content.get("path") or ".")
    bases = list(dict.fromkeys([base, path.parent] if base.is_dir() else [path.parent]))
    for split in ("train", "val", "test"):
        entries = content.get(split) or []
        for entry in entries if isinstance(entries, list) else [entries]:
            place = _find(str(entry), bases)
            if place is None and split != "test":
                raise UserError(f"{path}: {split} is {entry}, which is not in "
                                f"{' or '.join(map(str, bases))}")  # fmt: skip
            if place is not None:
                files = _listed(export, place, bases[0], images)
                _add_images(export, files, bases[0], {split}, names)
    return export


def _find(entry: str, bases: list[Path]) -> Path | None:
    """A folder or list; some tools write `../train/images` for what lies beside the file."""
    stripped = entry
    while stripped.startswith("../"):
        stripped = stripped[3:]
    places = [base / name for name in (entry, stripped) for base in bases]
    return next((place for place in places if place.exists()), None)


def _listed(export: Export, place: Path, base: Path, images: ImageFinder) -> list[Path]:
    """The images of a folder or of a list."""
    if place.is_dir():
        return sorted(p for p in place.rglob("*") if p.suffix.lower() in IMAGE_ENDINGS)
    found = []
    for line in place.read_text("utf-8-sig").splitlines():
        if line.strip():
            file = _find(line.strip(), [place.parent, base]) or images.find(line.strip(), base)
            if file is None:
                export.drop("images that are not there", f"{place.name}: {line.strip()}")
            else:
                found.append(file)
    return found


def _add_images(
    export: Export, files: list[Path], base: Path, splits: set[str], names: list[str]
) -> None:
    for file in files:
        known = len(export.pictures)
        picture = export.add_picture(file, base, None, file.name)
        if picture is None:
            continue
        if len(export.pictures) > known:  # else another split has it too
            _add_shapes(export, picture, file, names)
        picture.splits |= splits


def _add_shapes(export: Export, picture: Picture, file: Path, names: list[str]) -> None:
    labels = _label_file(file)
    if not labels.is_file():
        return  # an image without objects
    for number, line in enumerate(labels.read_text("utf-8-sig").splitlines(), 1):
        where = f"{labels.name} line {number}"
        words = line.split()
        if not words:
            continue
        try:
            values = [float(word) for word in words[1:]]
            label = int(float(words[0]))
        except (ValueError, OverflowError):
            export.drop("lines that are no numbers", where)
            continue
        if not 0 <= label < len(names):
            export.drop(f"outlines of a class that is not among the {len(names)} names", where)
        elif len(values) == 4:
            export.drop("boxes, which tell no outline", where)
        elif len(values) < 6 or len(values) % 2:
            export.drop("outlines that are no pairs of x and y of three points", where)
        elif not all(math.isfinite(v) and -OUTSIDE <= v <= 1 + OUTSIDE for v in values):
            export.drop("outlines beyond 0..1, the share of the image's width or height", where)
        else:
            sides = picture.size[::-1] * (len(values) // 2)
            polygon = [round(v * side, 4) for v, side in zip(values, sides, strict=True)]
            picture.shapes.append(Shape(names[label], [polygon], where))


def _label_file(image: Path) -> Path:
    """`labels/.../<name>.txt` of `images/.../<name>.jpg`; beside the image where there is none."""
    parts = list(image.parts)
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        beside = Path(*parts[:last], "labels", *parts[last + 1 :]).with_suffix(".txt")
        if beside.is_file():
            return beside
    return image.with_suffix(".txt")
