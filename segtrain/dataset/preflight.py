"""A look at a sample of the images and labels before the first step."""

import logging
from collections.abc import Sequence

import numpy as np

from segtrain.contracts import Source
from segtrain.dataset.counts import count_labels
from segtrain.dataset.files import read_bytes
from segtrain.dataset.orientation import read_orientation
from segtrain.dataset.shards import ShardSource
from segtrain.errors import UserError
from segtrain.label_set import LabelSet

logger = logging.getLogger("segtrain")


def check_labels(
    source: Source, labels: LabelSet, split: str, sample_size: int, trained_on: bool = True
) -> np.ndarray:
    """Reads `sample_size` evenly spaced samples; returns their (K,) pixels (instances) per class.

    Where those show too few classes all are read, so that a rare one is no reason to refuse.

    Raises:
        UserError: a file is damaged, a pair's sizes differ, a mask value is not in the label map;
            or as `require_classes`, where `trained_on` is explained.
    """
    sample = evenly_spaced(len(source), sample_size)
    rest = sorted(set(range(len(source))) - set(sample))
    counts, semantic = np.zeros(labels.num_classes + 1, np.int64), True
    for looked_at, index in enumerate((*sample, *rest), 1):
        label = source.read(index)[1]
        semantic = isinstance(label, np.ndarray) and not labels.overlapping
        counts += count_labels(label, labels)
        if looked_at >= len(sample) and _shows_enough(counts, semantic, trained_on):
            break
    require_classes(counts, looked_at, split, labels, semantic, trained_on)
    return counts[:-1]


def require_classes(
    counts: np.ndarray, images: int, split: str, labels: LabelSet, semantic: bool, trained_on: bool
) -> None:
    """Refuses labels that show too few classes: mostly a wrong map, as of masks of 0 and 255.

    Two have to be there; of instances, of classes that may overlap, or where a split is only
    evaluated and nothing in it is void, one.

    Args:
        counts: (K + 1,) pixels (instances) per class; last, void pixels (crowds).
        images: in which they were counted.
        split: its name.
        labels: the classes.
        semantic: whether labels are masks of one class a pixel.
        trained_on: whether the split is to train on.

    Raises:
        UserError: there are fewer; says which, and the label map.
    """
    if not _shows_enough(counts, semantic, trained_on):
        present = [labels.names[train] for train in np.flatnonzero(counts[:-1])]
        raise UserError(
            f"split '{split}': {images} masks show only {present or 'void'} of "
            f"{labels.num_classes} classes, and {counts[-1] / max(1, counts.sum()):.0%} "
            f"void pixels. The label map is: {labels.describe()}. If masks hold 0 and 255, give "
            "both values a class (for a folder: '0 background' and '255 object' in classes.txt)"
        )


def _shows_enough(counts: np.ndarray, semantic: bool, trained_on: bool) -> bool:
    least = 2 if semantic and (trained_on or counts[-1]) else 1
    return np.count_nonzero(counts[:-1]) >= least


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
        return read_orientation(read_bytes(file))
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
