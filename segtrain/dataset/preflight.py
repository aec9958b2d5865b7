"""A look at a sample of the labels before the first step."""

import numpy as np

from segtrain.contracts import LabelSet, Source
from segtrain.dataset.counts import count_labels
from segtrain.errors import UserError


def check_labels(source: Source, labels: LabelSet, split: str, sample_size: int) -> np.ndarray:
    """Reads `sample_size` evenly spaced samples; returns their (K,) pixels (instances) per class.

    Raises:
        UserError: a file is damaged, a pair's sizes differ, a mask value is not in the label map,
            or all masks together show fewer than two classes (a wrong map, such as masks of 0 and
            255 whose foreground is read as void), or instances none.
    """
    indices = evenly_spaced(len(source), sample_size)
    counts = np.zeros(labels.num_classes + 1, np.int64)
    for index in indices:
        label = source.read(index)[1]
        counts += count_labels(label, labels)
    expected = min(labels.num_classes, 2 if isinstance(label, np.ndarray) else 1)
    per_class = counts[:-1]
    present = [labels.names[train] for train in np.flatnonzero(per_class)]
    if len(present) < expected:
        raise UserError(
            f"split '{split}': {len(indices)} masks show only {present or 'void'} of "
            f"{labels.num_classes} classes, and {counts[-1] / max(1, counts.sum()):.0%} "
            f"void pixels. The label map is: {labels.describe()}. If masks hold 0 and 255, give "
            "both values a class (for a folder: '0 background' and '255 object' in classes.txt)"
        )
    return per_class


def evenly_spaced(length: int, count: int) -> list[int]:
    """At most `count` different positions from the first to the last of `length`."""
    return np.unique(np.linspace(0, length - 1, count).round().astype(int)).tolist()
