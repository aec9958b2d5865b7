"""What the classes of mask files are called: the lists of many tools, or the values themselves."""

import csv
import json
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from segtrain.dataset.classes import read_classes, read_labelmap
from segtrain.dataset.files import read_lines, read_mask
from segtrain.dataset.labels import voc_colour_map
from segtrain.errors import UserError
from segtrain.label_set import UNKNOWN, VOID, LabelSet

logger = logging.getLogger("segtrain")

VOID_NAMES = {"void", "__ignore__", "_ignore_", "ignore", "unlabeled", "unlabelled"}
MOST_COLOURS = 64  # that masks without a list may have; more are edges drawn smoothly
COLOURED_MODES = ("RGB", "RGBA")
PLAIN_LISTS = ("class_names.txt", "labels.txt", "label_names.txt")

Value = int | tuple[int, int, int] | None  # a number, a colour, or the place in the list


def class_list(root: Path, masks: list[Path]) -> LabelSet:
    """The classes of masks that show all of them.

    Raises:
        UserError: a list cannot be understood; or there is none, and the masks have too many
            values.
    """
    shown_by_colour = _mode(masks[0]) in COLOURED_MODES
    for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        if (folder / "classes.txt").exists():
            return read_classes(folder / "classes.txt")
        if (folder / "labelmap.txt").exists():
            return read_labelmap(folder / "labelmap.txt")
        for name, read in READERS.items():
            if (folder / name).exists():
                by_colour = shown_by_colour or _mode(masks[0]) == "P"
                return label_set(folder / name, read(folder / name), by_colour)
    return _counted(root, masks, shown_by_colour)


def label_set(path: Path, entries: list[tuple[str, Value]], by_colour: bool) -> LabelSet:
    """Of names and what stands for them, void ones apart.

    Args:
        path: of the list, for messages.
        entries: name, and number or colour; or None, for the place in the list.
        by_colour: whether masks show colours, where the list has them.

    Raises:
        UserError: there are too few classes or too many.
    """
    colours = by_colour and all(isinstance(value, tuple) for _, value in entries)
    raw_to_train: dict[int, int | None] = {}
    names: list[str] = []
    shown: list[tuple[int, int, int]] = []
    for place, (name, value) in enumerate(entries):
        number = value if isinstance(value, int) else place
        raw = int.from_bytes(bytes(value)) if colours and isinstance(value, tuple) else number
        if name.strip().lower() in VOID_NAMES:
            raw_to_train[raw] = None
            continue
        raw_to_train[raw] = len(names)
        names.append(name)
        shown.append(value if isinstance(value, tuple) else (0, 0, 0))
    if not 2 <= len(names) < UNKNOWN:
        raise UserError(f"{path}: {len(names)} classes besides void; at least 2 are needed, and at "
                        f"most {UNKNOWN - 1} possible")  # fmt: skip
    if not colours:
        raw_to_train.setdefault(VOID, None)
    palette = tuple(shown) if len(set(shown)) == len(shown) else voc_colour_map(len(names))
    return LabelSet(tuple(names), palette, raw_to_train, colours)


def _mode(mask: Path) -> str:
    try:
        with Image.open(mask) as image:
            return image.mode
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{mask}: not a readable mask ({error})") from None


def _counted(root: Path, masks: Iterable[Path], by_colour: bool) -> LabelSet:
    """Classes called after their values, where no list names them."""
    values: set[int] = set()
    for mask in masks:
        values |= set(np.unique(read_mask(mask, by_colour)).tolist())
        if len(values) > (most := MOST_COLOURS if by_colour else UNKNOWN):
            kind = "colours" if by_colour else "values"
            raise UserError(
                f"{root}: the masks have over {most} {kind} and no list of classes; "
                "smooth edges or JPEG make such; write the masks without, or list the classes in "
                "classes.txt: '<r>,<g>,<b> <name>' or '<value> <name>' a line"
            )
    if by_colour:
        entries = [(f"#{value:06x}", tuple(value.to_bytes(3))) for value in sorted(values)]
    elif values <= {0, 255} or values <= {0, 1}:
        entries = [("background", 0), ("foreground", max(values))]
    else:
        entries = [(f"class_{value}", value) for value in sorted(values - {VOID})]
    logger.info("classes     no list in %s: called after what the masks hold, %s; to name them "
                "write classes.txt there, '%s' a line", root,
                ", ".join(name for name, _ in entries[:12]),
                "<r>,<g>,<b> <name>" if by_colour else "<value> <name>")  # fmt: skip
    return label_set(root, entries, by_colour)


def _read_csv(path: Path) -> list[tuple[str, Value]]:
    """Roboflow's `Pixel Value, Class`, or `name, r, g, b` with a heading."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(read_lines(path))]
    try:
        if len(rows[0]) == 2:
            return [(name, int(value)) for value, name in rows[not rows[0][0].isdecimal() :]]
        rows = rows[not rows[0][1].isdecimal() :]
        return [(name, (int(r), int(g), int(b))) for name, r, g, b, *_ in rows]
    except (ValueError, IndexError):
        raise UserError(
            f"{path}: expected '<pixel value>,<class>' or '<class>,<r>,<g>,<b>' a line, with a "
            f"heading or without; found {rows[:2]}"
        ) from None


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable JSON ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping, found a {type(content).__name__}")
    return content


def _read_dataset_meta(path: Path) -> list[tuple[str, Value]]:
    """Datumaro's `label_map` of numbers, and `segmentation_colors` in their order."""
    content = _read_json(path)
    try:
        names = [(int(number), str(name)) for number, name in content["label_map"].items()]
        colours = content.get("segmentation_colors")
        if colours is None:
            return [(name, number) for number, name in sorted(names)]
        return [(name, _colour(colours[number])) for number, name in sorted(names)]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise UserError(f"{path}: expected label_map and segmentation_colors") from None


def _read_machine_colours(path: Path) -> list[tuple[str, Value]]:
    """Supervisely's colours of its masks for machines."""
    try:
        return [(name, _colour(colour)) for name, colour in _read_json(path).items()]
    except (TypeError, ValueError):
        raise UserError(f"{path}: expected a colour of three numbers a class") from None


def _colour(numbers: list[int]) -> tuple[int, int, int]:
    red, green, blue = map(int, numbers)
    if not all(0 <= number <= 255 for number in (red, green, blue)):
        raise ValueError
    return red, green, blue


def _read_names(path: Path) -> list[tuple[str, Value]]:
    """A name a line; LabelMe's list starts with `__ignore__`, which has the value -1."""
    names = read_lines(path)
    shift = int(bool(names) and names[0] == "__ignore__")
    return [(name, place - shift) for place, name in enumerate(names)]


READERS = {
    "_classes.csv": _read_csv,
    "labelmap.csv": _read_csv,
    "class_dict.csv": _read_csv,
    "classes.csv": _read_csv,
    "dataset_meta.json": _read_dataset_meta,
    "obj_class_to_machine_color.json": _read_machine_colours,
    **dict.fromkeys(PLAIN_LISTS, _read_names),
}
