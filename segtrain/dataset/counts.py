"""How often each class occurs, and loss weights made of that."""

import logging
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader, Dataset

from segtrain.contracts import InstanceTarget, Source
from segtrain.dataset.cache import cached_folder, fingerprint
from segtrain.dataset.workers import one_thread
from segtrain.label_set import LabelSet
from segtrain.planes import count_planes
from segtrain.segments import count_segments
from segtrain.terminal import track

logger = logging.getLogger("segtrain")


def count_labels(label: np.ndarray | InstanceTarget, labels: LabelSet) -> np.ndarray:
    """(K + 1,) int64 pixels (instances) per class of one sample; last, void pixels (crowds)."""
    if not isinstance(label, np.ndarray):
        single = np.bincount(label["labels"][~label["crowd"]], minlength=labels.num_classes)
        return np.append(single, label["crowd"].sum())
    if labels.overlapping:
        return count_planes(label, labels.num_classes)
    if labels.things is not None:
        return count_segments(label, labels.num_classes)
    counts = np.bincount(label.ravel(), minlength=256)
    return np.append(counts[: labels.num_classes], counts[labels.ignore_index])


class _Counts(Dataset):
    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.source.class_counts(index)


def class_frequency(source: Source, name: str, num_workers: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of each class, and valid pixels of the images that show it, over a whole split.

    Read once and cached until a file or the label map changes.

    Args:
        source: the split.
        name: of the data set and split.
        num_workers: processes that read.

    Returns:
        Two (K,) int64 arrays.
    """

    def build(folder: Path) -> None:
        logger.info("classes     counting the labels of %d images, once", len(source))
        loader = DataLoader(
            _Counts(source), batch_size=None, num_workers=num_workers, worker_init_fn=one_thread
        )
        pixels = shown_in = 0
        for row in track(loader, len(source), "counting labels"):
            per_class = np.asarray(row)[:-1]
            pixels = pixels + per_class
            shown_in = shown_in + per_class.sum() * (per_class > 0)
        np.save(folder / "frequency.npy", np.stack([pixels, shown_in]))

    folder = cached_folder(f"frequency/{name}", fingerprint(source.listing()), build)
    pixels, shown_in = np.load(folder / "frequency.npy")
    return pixels, shown_in


def median_frequency_weights(pixels: np.ndarray, shown_in: np.ndarray) -> np.ndarray:
    """(K,) loss weights median(f) / f, where f is a class's share of the images that show it
    (Eigen & Fergus, arXiv 1411.4734, section 6.3.2); 0 for a class that never occurs.

    Args:
        pixels: (K,) pixels of each class.
        shown_in: (K,) valid pixels of the images that show it.
    """
    shown = pixels > 0
    frequency = pixels[shown] / shown_in[shown]
    weights = np.zeros(len(pixels))
    weights[shown] = np.median(frequency) / frequency
    return weights
