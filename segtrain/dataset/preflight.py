"""A look at a sample of the images and labels before the first step."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segtrain.contracts import LabelSet, Source
from segtrain.dataset.counts import count_labels
from segtrain.dataset.orientation import read_orientation
from segtrain.dataset.shards import ShardSource
from segtrain.errors import UserError

logger = logging.getLogger("segtrain")


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


def report_turned(source: Source, split: str, sample_size: int) -> None:
    """Says so if any of `sample_size` evenly spaced images has an EXIF orientation."""
    indices = evenly_spaced(len(source), sample_size)
    found = {source.name(index): image_orientation(source, index) for index in indices}
    turned = {name: orientation for name, orientation in found.items() if orientation > 1}
    if turned:
        logger.info("orientation %s", describe_turned(turned, len(indices), split))


def report_left_out(notes: Sequence[str], split: str) -> None:
    """Says how many objects were left out, and names some: nothing is wrong, but fewer are there.

    Args:
        notes: of the split's listing.
        split: its name.
    """
    if notes:
        more = f", ... and {len(notes) - 3} more" if notes[3:] else ""
        logger.info("left out    %d annotations of '%s' show nothing: %s%s", len(notes), split,
                    ", ".join(notes[:3]), more)  # fmt: skip


def image_orientation(source: Source, index: int) -> int:
    """EXIF's orientation, by which an image was turned upright; 1 where it was not."""
    file = source.image_file(index)
    if file is not None:
        return read_orientation(Path(file).read_bytes())
    return read_orientation(source.content(index)[0]) if isinstance(source, ShardSource) else 1


def describe_turned(turned: dict[str, int], looked_at: int, split: str) -> str:
    """What was done with images that have an orientation, on one line.

    Args:
        turned: name and orientation of at least one image.
        looked_at: how many there are with those that have none.
        split: its name.
    """
    name, orientation = next(iter(turned.items()))
    return (
        f"{len(turned)} of {looked_at} images of '{split}' are turned upright by an EXIF tag, as "
        f"{name} by orientation {orientation}; masks are turned by their own tag alone, other "
        "labels never: they have to be drawn on the upright image"
    )


def evenly_spaced(length: int, count: int) -> list[int]:
    """At most `count` different positions from the first to the last of `length`."""
    return np.unique(np.linspace(0, length - 1, count).round().astype(int)).tolist()
