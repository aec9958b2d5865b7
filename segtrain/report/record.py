"""What an evaluation notes beside `results.json`: the confusion matrix and a figure an image.

Both are tables that a spreadsheet opens, and the report is made from them.
"""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segtrain.writing import complete

CONFUSION = "confusion.csv"  # rows truth, columns prediction, in pixels
IMAGE_SCORES = "image_scores.csv"  # in the order of the split


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
    """Matrix (K, K) int64 and names; None where there is none."""
    if not (folder / CONFUSION).is_file():
        return None
    (_, *names), *rows = _read(folder / CONFUSION)
    return np.array([[int(value) for value in row[1:]] for row in rows], np.int64), names


def write_image_scores(folder: Path, scores: ImageScores) -> None:
    """Writes one line an image."""
    rows = (
        [name, "" if math.isnan(score) else f"{score:.6f}"]
        for name, score in zip(scores.names, scores.scores.tolist(), strict=True)
    )
    _write(folder / IMAGE_SCORES, ["image", scores.metric], rows)


def read_image_scores(folder: Path) -> ImageScores | None:
    """What `write_image_scores` wrote; None where there is nothing."""
    if not (folder / IMAGE_SCORES).is_file():
        return None
    (_, metric), *rows = _read(folder / IMAGE_SCORES)
    scores = np.array([float(score) if score else math.nan for _, score in rows])
    return ImageScores(metric, [name for name, _ in rows], scores)


def _write(path: Path, head: list[str], rows: Iterable[list]) -> None:
    with complete(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])


def _read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))
