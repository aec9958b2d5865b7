"""A table of text cells, from which every form of output is made."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Column(NamedTuple):
    """One column.

    Args:
        key: its name on the command line and in CSV.
        title: its heading.
        numeric: whether it is set flush right.
        wraps: whether long texts may be broken into lines.
    """

    key: str
    title: str
    numeric: bool = False
    wraps: bool = False


class Cell(NamedTuple):
    """One cell.

    Args:
        text: what is shown in every form; may have several lines.
        value: what it is sorted by; None for the text itself.
        link: a file that it leads to.
    """

    text: str
    value: float | None = None
    link: Path | None = None


@dataclass(frozen=True)
class Sheet:
    """A titled table with notes below.

    Args:
        name: short, in lower case.
        title: above it.
        columns: in order.
        rows: one cell a column.
        notes: lines below it.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)
