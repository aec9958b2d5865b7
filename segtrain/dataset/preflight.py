"""A look at a sample of the labels before the first step."""

import numpy as np

from segtrain.contracts import LabelSet, Source
from segtrain.errors import UserError


def check_labels(source: Source, labels: LabelSet, split: str, sample_size: int) -> np.ndarray:
    """Reads `sample_size` evenly spaced pairs; returns their (K,) pixel counts per class.

    Raises:
        UserError: a file is damaged, a pair's sizes differ, a mask value is not in the label map,
            or all masks together show fewer than two classes (a wrong map, such as masks of 0 and
            255 whose foreground is read as void).
    """
    indices = np.unique(np.linspace(0, len(source) - 1, sample_size).round().astype(int))
    counts = np.zeros(256, np.int64)
    for index in indices:
        _, mask = source.read(int(index))
        counts += np.bincount(mask.ravel(), minlength=256)
    per_class = counts[: labels.num_classes]
    present = [labels.names[train] for train in np.flatnonzero(per_class)]
    if labels.num_classes > 1 and len(present) < 2:
        raise UserError(
            f"split '{split}': {len(indices)} masks show only {present or 'void'} of "
            f"{labels.num_classes} classes, and {counts[labels.ignore_index] / counts.sum():.0%} "
            f"void pixels. The label map is: {labels.describe()}. If masks hold 0 and 255, give "
            "both values a class (for a folder: '0 background' and '255 object' in classes.txt)"
        )
    return per_class
