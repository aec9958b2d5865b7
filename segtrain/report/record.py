"""What an evaluation notes beside `results.json`: the confusion matrix and a figure an image.

Both are tables that a spreadsheet opens, and the report is made from them.
"""

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from segtrain.errors import UserError
from segtrain.writing import complete

CONFUSION = "confusion.csv"  # rows truth, columns prediction, in pixels
IMAGE_SCORES = "image_scores.csv"  # in the order of the split

T = TypeVar("T")


class ImageScores(NamedTuple):
    """A figure in 0..1 for each image of a split, in its order; NaN where there is none."""

    metric: str
    names: list[str]
    scores: np.ndarray  # (n,)


def write_confusion(folder: Path, counts: np.ndarray, names: Sequence[str]) -> None:
    """Writes the matrix (K, K) with the classes' names."""
    rows = ([name, *line] for name, line in zip(names, counts.tolist(), strict=True))
    _write(folder / CONFUSION, ["truth \\ prediction", *names], rows)


def read_confusion(folder: Path) -> tuple[np.ndarray, list[str]] | None:
    """Matrix (K, K) int64 and names; None where there is none; UserError where it is damaged."""
    return _read(folder / CONFUSION, _matrix)


def write_image_scores(folder: Path, scores: ImageScores) -> None:
    """Writes one line an image."""
    rows = (
        [name, "" if math.isnan(score) else f"{score:.6f}"]
        for name, score in zip(scores.names, scores.scores.tolist(), strict=True)
    )
    _write(folder / IMAGE_SCORES, ["image", scores.metric], rows)


def read_image_scores(folder: Path) -> ImageScores | None:
    """What `write_image_scores` wrote; None where there is none; UserError where it is damaged."""
    return _read(folder / IMAGE_SCORES, _scores)


def _matrix(head: list[str], rows: list[list[str]]) -> tuple[np.ndarray, list[str]]:
    counts = np.array([[int(value) for value in row[1:]] for row in rows], np.int64)
    if len(head) < 2 or counts.shape != (len(head) - 1, len(head) - 1):
        raise ValueError(f"{len(rows)} rows of {len(head) - 1} classes")
    return counts, head[1:]


def _scores(head: list[str], rows: list[list[str]]) -> ImageScores:
    _, metric = head
    scores = np.array([float(score) if score else math.nan for _, score in rows])
    return ImageScores(metric, [name for name, _ in rows], scores)


def _write(path: Path, head: list[str], rows: Iterable[list]) -> None:
    with complete(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])


def _read(path: Path, parse: Callable[[list[str], list[list[str]]], T]) -> T | None:
    """What the first and the other rows of a table stand for; None where there is no table."""
    if not path.is_file():
        return None
    try:
        with path.open(newline="", encoding="utf-8") as file:
            head, *rows = csv.reader(file)
        return parse(head, rows)
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: not what an evaluation writes ({error}); segtrain evaluate "
                        "makes it anew") from None  # fmt: skip
