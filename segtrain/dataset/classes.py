"""`classes.txt` and CVAT's `labelmap.txt`: a folder's classes, and how its masks spell them."""

import re
from collections.abc import Iterable
from pathlib import Path

from segtrain.dataset.files import read_lines
from segtrain.dataset.labels import voc_colour_map
from segtrain.errors import UserError
from segtrain.label_set import UNKNOWN, VOID, LabelSet

NUMBERED = re.compile(r"(-?\d+)\s+(\S.*)")
COLOURED = re.compile(r"(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s+(\S.*)")
CVAT_LINE = re.compile(r"([^:]+):(\d+),(\d+),(\d+)(:.*)?")

Entries = list[tuple[int, str]]  # mask value and class of each line


def read_classes(path: Path) -> LabelSet:
    """The label set of a `classes.txt`, one class a line.

    Either plain names (mask values 0, 1, 2, ... in that order; `<mask value> void` may stand among
    them), or every line `<mask value> <name>`, or every line `<r>,<g>,<b> <name>` where masks show
    classes by colour.

    Raises:
        UserError: a line is none of these, a class or value stands twice, or there are too few
            classes to tell apart, or too many.
    """
    lines = read_lines(path)
    matches = [COLOURED.fullmatch(line) for line in lines]
    if any(matches):
        _require_all(path, lines, matches, "colour, '<r>,<g>,<b> <name>'")
        return _coloured(path, ((match[4], *match.group(1, 2, 3)) for match in matches))
    matches = [NUMBERED.fullmatch(line) for line in lines]
    if any(match is not None and match[2] != "void" for match in matches):
        _require_all(path, lines, matches, "mask value, '<mask value> <name>'")
    plain = [line for line, match in zip(lines, matches, strict=True) if match is None]
    entries = [(int(match[1]), match[2]) for match in matches if match is not None]
    entries += enumerate(plain)
    return _label_set(path, entries, colours=False)


def read_labelmap(path: Path) -> LabelSet:
    """The label set of a `labelmap.txt` as CVAT exports it: `<name>:<r>,<g>,<b>:...`, by colour.

    Raises:
        UserError: as `read_classes`.
    """
    lines = [line for line in read_lines(path) if not line.startswith("#")]
    matches = [CVAT_LINE.fullmatch(line) for line in lines]
    _require_all(path, lines, matches, "colour, '<name>:<r>,<g>,<b>::'")
    return _coloured(path, (match.group(1, 2, 3, 4) for match in matches))


def _require_all(
    path: Path, lines: list[str], matches: list[re.Match[str] | None], expected: str
) -> None:
    for line, match in zip(lines, matches, strict=True):
        if match is None:
            raise UserError(f"{path}: the line '{line}' has no {expected}, as other lines have; "
                            "give every class one")  # fmt: skip


def _coloured(path: Path, found: Iterable[tuple[str, str, str, str]]) -> LabelSet:
    """Of names and the three texts of their colours."""
    entries = []
    for name, *texts in found:
        colour = tuple(map(int, texts))
        if max(colour) > 255:
            raise UserError(f"{path}: {name} has the colour {','.join(texts)}; expected 0 to 255")
        entries.append((int.from_bytes(bytes(colour)), name))
    return _label_set(path, entries, colours=True)


def _label_set(path: Path, entries: Entries, colours: bool) -> LabelSet:
    values = [value for value, _ in entries]
    classes = [name for _, name in entries if name != "void"]
    kind = "colour" if colours else "mask value"
    for what, found in ((kind, values), ("class", classes)):
        twice = sorted({str(entry) for entry in found if found.count(entry) > 1})
        if twice:
            raise UserError(f"{path}: {what} {', '.join(twice)} stands more than once")
    if not 2 <= len(classes) < UNKNOWN:
        only = f" ('{classes[0]}')" if len(classes) == 1 else ""
        raise UserError(
            f"{path}: {len(classes)} classes{only} besides void; a network needs at least 2 to "
            f"tell apart, and at most {UNKNOWN - 1} are possible. If all other pixels are "
            "background, give them a class, such as '0 background' instead of '0 void'"
        )
    raw_to_train: dict[int, int | None] = {
        value: None if name == "void" else classes.index(name) for value, name in entries
    }
    if not colours:
        raw_to_train.setdefault(VOID, None)
    palette = voc_colour_map(len(classes))
    if colours:
        shown = [value for value, name in entries if name != "void"]
        palette = tuple(tuple(value.to_bytes(3)) for value in shown)
    return LabelSet(tuple(classes), palette, raw_to_train, colours)
