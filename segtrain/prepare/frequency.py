"""How often each class occurs, in one sample or in the whole set, and how that is written."""

import math
from typing import NamedTuple

import numpy as np

from segtrain.dataset.counts import count_labels
from segtrain.label_set import LabelSet
from segtrain.prepare.overlay import Sample


class Entry(NamedTuple):
    """A class with its frequency in one sample or in the whole set."""

    train_id: int | None
    name: str
    colour: tuple[int, int, int] | None  # None is shown hatched: void and crowds
    count: int
    share: float


def class_entries(
    labels: LabelSet, counts: np.ndarray, amounts: np.ndarray, total: int, last: str
) -> list[Entry]:
    """All K classes and `last`; the shares are `amounts` (K+1,) of `total`."""
    shares = amounts / max(1, total)
    return [
        Entry(index, name, colour, int(count), float(share))
        for index, name, colour, count, share in zip(
            (*range(labels.num_classes), None), (*labels.names, last), (*labels.palette, None),
            counts, shares, strict=True,
        )
    ]  # fmt: skip


def sample_entries(sample: Sample, labels: LabelSet) -> list[Entry]:
    """The classes in a sample, largest area first."""
    void, instances = labels.num_classes, sample.instances
    if instances is None:
        areas = counts = count_labels(sample.label, labels)
    else:
        ids = instances["labels"].numpy()
        counts = np.bincount(ids, minlength=void + 1)
        sizes = np.count_nonzero(sample.masks, axis=(1, 2))
        areas = np.bincount(ids, weights=sizes, minlength=void + 1)
    last = "void" if instances is None else "crowd"
    entries = class_entries(labels, counts, areas, math.prod(sample.image.shape[:2]), last)
    return sorted((entry for entry in entries if entry.count), key=lambda entry: -entry.share)


def caption(sample: Sample, entry: Entry) -> str:
    """An entry of a sample in words: its share and, of instances, how many."""
    times = "" if sample.instances is None else f"{entry.count} × "
    return f"{times}{entry.name} {percent_text(entry.share)}"


def percent_text(share: float) -> str:
    """A share, 0 to 1, in percent."""
    percent = 100 * share
    if percent < 0.01:
        return "<0.01 %" if percent else "0 %"
    return f"{percent:.{0 if percent >= 10 else 1 if percent >= 1 else 2}f} %"


def brief(count: int) -> str:
    """Three digits and a unit: 950, 12.3k, 4.56M."""
    power = min(4, max(0, int(math.log10(max(1, count))) // 3))
    return f"{float(f'{count / 1000**power:.3g}'):g}" + ("", "k", "M", "G", "T")[power]


def decades(classes: list[Entry]) -> tuple[int, int]:
    """The powers of ten at the two ends of the bars."""
    counts = [entry.count for entry in classes if entry.count] or [1]
    low = math.floor(math.log10(min(counts)))
    return low, max(low + 1, math.ceil(math.log10(max(counts))))


def bar_length(count: int, low: int, high: int) -> float:
    """Length of a present class's bar, at most 1; the smallest is still seen."""
    return max(0.012, (math.log10(count) - low) / (high - low))
