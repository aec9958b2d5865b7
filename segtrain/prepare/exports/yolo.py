"""YOLO segmentation: `data.yaml`, images, and a text file of outlines an image."""

import math
import os
import re
from pathlib import Path

import yaml

from segtrain.dataset.files import read_bytes, read_lines, read_text
from segtrain.errors import UserError
from segtrain.prepare.exports.finder import IMAGE_ENDINGS, ImageFinder, split_of, visible_files
from segtrain.prepare.exports.model import MISSING, Export, Picture, Shape

KIND = "YOLO segmentation"
OUTSIDE = 0.01  # of the side that an outline may reach beyond the image, by rounding
SPLIT_KEYS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
CLASS_FILE = "classes.txt"
SHOWN = 5  # faults in one message


def find_yolo(files: list[Path]) -> list[Path]:
    """The files that name the classes of a YOLO export, `data.yaml` before `classes.txt`.

    Raises:
        UserError: outlines are there, but nothing names their classes.
    """
    yamls = [
        file
        for file in files
        if file.suffix.lower() in (".yaml", ".yml")
        and re.search(rb"^[\"']?(names|nc)[\"']?\s*:", read_bytes(file), re.MULTILINE)
    ]
    listed = [file for file in files if file.name == CLASS_FILE and _has_labels(file, files)]
    alone = next((f for f in files if f.suffix == ".txt" and f.parent.name == "labels"), None)
    if alone is not None and not yamls and not listed and _is_outline(alone):
        raise UserError(f"{alone}: YOLO's labels, but neither data.yaml nor {CLASS_FILE} names "
                        f"their classes; write {alone.parent.parent / CLASS_FILE}, one name a "
                        "line, in the order of the numbers")  # fmt: skip
    return yamls or listed


def _has_labels(class_file: Path, files: list[Path]) -> bool:
    """Whether there are YOLO's label files around a list of classes."""
    folder = class_file.parent
    texts = [file for file in files if file.suffix == ".txt" and file != class_file]
    if any("labels" in file.relative_to(folder.parent).parts[:-1] for file in texts
           if file.is_relative_to(folder)):  # fmt: skip
        return True
    beside = {file.stem for file in texts if file.parent == folder}
    return any(f.parent == folder and f.suffix.lower() in IMAGE_ENDINGS and f.stem in beside
               for f in files)  # fmt: skip


def _is_outline(file: Path) -> bool:
    """Whether a text file begins as labels do: a whole number, then three points at least."""
    return bool(re.match(rb"(\xef\xbb\xbf)?\s*\d+(\s+[\d.eE+-]+){6,}\s*$",
                         read_bytes(file).split(b"\n")[0]))  # fmt: skip


def read_yolo(path: Path, images: ImageFinder) -> Export:
    """The images of `train`, `val` and `test` of a `data.yaml`; or, where those name none and of a
    `classes.txt`, all beside it, in the splits that their folders name.

    Args:
        path: the file.
        images: where images of lists are looked for that are not where their paths say.

    Raises:
        UserError: the file is not what it should be, nothing that it names is there, or a label
            file has a class without a name or numbers that are no shares of the image.
    """
    if path.name == CLASS_FILE:
        names, content = read_lines(path), {}
    else:
        content = _read_yaml(path)
        names = _class_names(path, content)
    export = Export(KIND, list(dict.fromkeys(names)))
    reader = _Labels(export, names)
    base = path.parent / "".join(_as_list(content.get("path"))[:1]).replace("\\", "/")
    bases = list(dict.fromkeys([base, path.parent] if os.path.isdir(base) else [path.parent]))
    entries = [
        (split, entry.replace("\\", "/"))
        for key, split in SPLIT_KEYS.items()
        for entry in _as_list(content.get(key))
    ]
    for split, entry in entries:
        place = _find(entry, bases)
        if place is None:
            export.drop("splits that are not there", f"{split}: {entry}")
        else:
            reader.add(_listed(export, place, bases[0], images), bases[0], frozenset({split}))
    if entries and len(export.dropped.get("splits that are not there", ())) == len(entries):
        raise UserError(f"{path}: {entries[0][0]} is {entries[0][1]}, which is not in "
                        f"{' or '.join(map(str, bases))}, nor is any other split")  # fmt: skip
    if not entries:
        root = path.parent.parent if path.parent.name == "labels" else path.parent
        files = _listed(export, root, root, images)
        for file in files:
            reader.add([file], root, split_of(*file.relative_to(root).parent.parts))
    reader.finish()
    return export


def _read_yaml(path: Path) -> dict:
    try:
        content = yaml.load(read_bytes(path), Loader=yaml.BaseLoader)  # of texts: `no` is no False
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{path}: not a data.yaml of YOLO ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a data.yaml of YOLO (no keys)")
    if "kpt_shape" in content:
        raise UserError(f"{path}: labels of key points (kpt_shape), which tell no outline")
    return content


def _class_names(path: Path, content: dict) -> list[str]:
    """Names in the order of their numbers; `class0`, ... where there is but their count."""
    count, listed = content.get("nc"), content.get("names") or []
    if not listed and _whole(count) in range(1, 1 << 16):
        return [f"class{number}" for number in range(_whole(count))]
    if isinstance(listed, str):
        listed = [listed]
    pairs = list(listed.items() if isinstance(listed, dict) else enumerate(listed))
    names = {_whole(number): name for number, name in pairs}
    if not names or not all(isinstance(name, str) for name in names.values()):
        raise UserError(f"{path}: names is no list of class names, nor one by number")
    if set(names) != set(range(len(pairs))):
        numbers = ", ".join(str(number) for number, _ in pairs[:9])
        raise UserError(f"{path}: names are numbered {numbers}, expected 0 to {len(pairs) - 1}")
    if _whole(count) not in (None, len(names)):
        raise UserError(f"{path}: nc is {count}, but there are {len(names)} names")
    return [names[number] for number in range(len(names))]


def _whole(text: object) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,9}", str(text), re.ASCII) else None


def _as_list(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, str) and v not in ("", "~", "null")]


def _find(entry: str, bases: list[Path]) -> Path | None:
    """A folder or list: the longest end of its path that is there and names the same split.

    Some tools write `../train/images` for what lies beside the file, so upward steps are dropped
    first; others the path on the machine that exported.
    """
    parts = [part for part in entry.split("/") if part not in ("", ".", "..")]
    split = split_of(*reversed(parts))
    ends = [parts[start:] for start in range(len(parts))]
    ends = ["/".join(end) for end in ends if split_of(*reversed(end)) == split]
    names = [entry, *ends] if entry.startswith("/") or not ends else [ends[0], entry, *ends[1:]]
    places = [base / name for name in names for base in bases]
    return next((place for place in places if os.path.exists(place)), None)


def _listed(export: Export, place: Path, base: Path, images: ImageFinder) -> list[Path]:
    """The images of a folder or of a list, or one image."""
    if place.suffix.lower() in IMAGE_ENDINGS and place.is_file():
        return [place]
    if place.is_dir():
        return [p for p in visible_files(place) if p.suffix.lower() in IMAGE_ENDINGS]
    found = []
    for line in read_lines(place):
        file = images.find(line, place.parent, base)
        if file is None:
            export.drop(MISSING, f"{place.name}: {line}")
        else:
            found.append(file)
    return found


class _Labels:
    """Reads the label files of images.

    Args:
        export: gets the images with their outlines.
        names: of the classes, in the order of their numbers.
    """

    def __init__(self, export: Export, names: list[str]) -> None:
        self.export = export
        self.names = names
        self.faults: list[str] = []

    def add(self, files: list[Path], base: Path, splits: frozenset[str]) -> None:
        """Adds images, which may have been added for another split."""
        for file in files:
            known = len(self.export.pictures)
            picture = self.export.add_picture(file, base, None, file.name)
            if picture is None:
                continue
            if len(self.export.pictures) > known:
                self._read(picture, file, base)
            picture.splits |= splits

    def finish(self) -> None:
        """Refuses classes without a name and numbers that are no shares, by file and line."""
        if self.faults:
            more = [f"... and {len(self.faults) - SHOWN} more"] if self.faults[SHOWN:] else []
            raise UserError("\n  ".join([*self.faults[:SHOWN], *more]))

    def _read(self, picture: Picture, file: Path, base: Path) -> None:
        labels = _label_file(file, base)
        if labels is None:
            self.export.note("images without a label file, so without objects", picture.name)
            return
        for number, line in enumerate(read_text(labels).split("\n"), 1):
            if line.strip():
                self._read_line(picture, line.split(), labels, number)

    def _read_line(self, picture: Picture, words: list[str], labels: Path, number: int) -> None:
        where = f"{labels.name} line {number}"
        try:
            values = [float(word) for word in words[1:]]
            label = float(words[0])
        except ValueError:
            self.export.drop("lines that are no numbers", where)
            return
        if label not in range(len(self.names)):
            self.faults.append(f"{labels}: line {number}: class {words[0]}, expected 0 to "
                               f"{len(self.names) - 1} ({', '.join(self.names[:9])})")  # fmt: skip
        elif len(values) == 4:
            self.export.drop("boxes, which tell no outline", where)
        elif len(values) < 6 or len(values) % 2:
            self.export.drop("outlines that are no pairs of x and y of three points", where)
        elif not all(math.isfinite(v) and -OUTSIDE <= v <= 1 + OUTSIDE for v in values):
            far = next(v for v in values if not -OUTSIDE <= v <= 1 + OUTSIDE)
            self.faults.append(f"{labels}: line {number}: {far}, expected 0 to 1, the share of the "
                               "image's width or height")  # fmt: skip
        else:
            sides = picture.size[::-1] * (len(values) // 2)
            polygon = [round(v * side, 4) for v, side in zip(values, sides, strict=True)]
            picture.shapes.append(Shape(self.names[int(label)], [polygon], where))


def _label_file(image: Path, base: Path) -> Path | None:
    """`labels/.../<name>.txt` of `images/.../<name>.jpg`, `labels/<name>.txt`, or beside the image;
    None where there is none."""
    parts = list(image.parts)
    places = [image.with_suffix(".txt")]
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        labels = Path(*parts[:last], "labels")
        places = [Path(labels, *parts[last + 1 :]).with_suffix(".txt"), *places,
                  labels / f"{image.stem}.txt"]  # fmt: skip
    places.append(base / "labels" / f"{image.stem}.txt")
    return next((place for place in places if place.is_file()), None)
