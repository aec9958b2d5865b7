"""How often each score was given to pixels that a class covers, and to others: exact, in bounds.

Average precision needs the order of all scores of a split. They are kept as counts of different
float32 values, not one by one, and only while there are at most a fixed number of these: then the
last binary digits of all scores are dropped, one after the other, until there are. The digits that
remain are those that the whole split needs, so the result is the same on any number of processes.
"""

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from segtrain.metric.processes import collective

MOST = 2**22  # different scores of all classes together, 16 bytes each
HALF = 0x3F000000  # the bits of 0.5 as float32
DIGITS = 31  # bits of a place, see `places`


class ScoreCounts:
    """Counts of scores in 0..1 by class and truth.

    Args:
        num_classes: K.
        most: different scores, of all classes and both truths together, that are kept.
    """

    def __init__(self, num_classes: int, most: int = MOST) -> None:
        self.num_classes = num_classes
        self.most = most
        self.reset()

    def reset(self) -> None:
        """Forgets all."""
        self.dropped = 0  # digits
        self._keys = np.empty(0, np.int64)  # class, digits of the score, truth; sorted
        self._counts = np.empty(0, np.int64)
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._size = 0  # of what waits

    def update(self, scores: Tensor, masks: Tensor, valid: Tensor) -> None:
        """Adds an image: scores (K, H, W) float32 in 0..1, masks (K, H, W), valid (H, W) bool."""
        first = torch.arange(len(scores), device=scores.device)[:, None] << (DIGITS + 1)
        keys = first + (places(scores.float()[:, valid]) >> self.dropped << self.dropped << 1)
        found = torch.unique(keys + masks[:, valid], return_counts=True)
        self._waiting.append(tuple(part.cpu() for part in found))
        self._size += len(found[0])
        if self._size > self.most:
            self._merge()

    def compute(self) -> list[np.ndarray]:
        """For each class (n, 2) counts of others and of covered pixels, by rising score.

        A collective call.
        """
        self._merge()
        keys, counts = self._keys, self._counts
        with collective() as group:
            if group is not None:
                parts: list = [None] * dist.get_world_size()
                dist.all_gather_object(parts, (self.dropped, keys, counts), group=group)
                self.dropped = max(dropped for dropped, _, _ in parts)
                keys = np.concatenate([part[1] for part in parts])
                counts = np.concatenate([part[2] for part in parts])
                keys, counts = self._bounded(keys, counts)
        return [self._of_class(keys, counts, label) for label in range(self.num_classes)]

    def _merge(self) -> None:
        waiting = self._waiting
        self._waiting, self._size = [], 0
        keys = np.concatenate([self._keys, *[keys.numpy() for keys, _ in waiting]])
        counts = np.concatenate([self._counts, *[counts.numpy() for _, counts in waiting]])
        self._keys, self._counts = self._bounded(keys, counts)

    def _bounded(self, keys: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Equal keys as one, with as few digits dropped as the bound allows."""
        while True:
            keys, counts = added_up(without(keys, self.dropped), counts)
            if len(keys) <= self.most or self.dropped == DIGITS:
                return keys, counts
            self.dropped += 1

    def _of_class(self, keys: np.ndarray, counts: np.ndarray, label: int) -> np.ndarray:
        start, stop = np.searchsorted(keys, np.array([label, label + 1]) << (DIGITS + 1))
        own = keys[start:stop]
        different, number = np.unique(own >> 1, return_inverse=True)
        table = np.zeros((len(different), 2), np.int64)
        table[number, own & 1] = counts[start:stop]
        return table


def places(scores: Tensor) -> Tensor:
    """Scores in 0..1, float32 -> their places in order, int64, different where the scores are.

    Below a half the bits of the score, which are ordered as it is; above, those of what is missing
    to 1, downwards. So dropped digits cost as little precision near 1 as near 0.
    """
    is_low = scores < 0.5
    near = torch.where(is_low, scores, 1 - scores).abs().contiguous()  # -0.0 has another bit
    bits = near.view(torch.int32).long()
    return torch.where(is_low, bits, 2 * HALF - bits)


def without(keys: np.ndarray, dropped: int) -> np.ndarray:
    """The keys without so many of their scores' last digits."""
    truth = keys & 1
    return (keys >> (dropped + 1) << (dropped + 1)) | truth


def added_up(keys: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted different keys, each with the sum of its counts."""
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    sums = np.add.reduceat(counts, starts) if len(starts) else counts
    return keys[starts], sums


def average_precision(table: np.ndarray) -> float | None:
    """The sum over thresholds of precision times the recall gained, without interpolation.

    Args:
        table: (n, 2) counts of others and of covered pixels, by rising score.

    Returns:
        In 0..1; None where the class covers nothing.
    """
    others, covered = table[::-1].T
    total = covered.sum()
    if not total:
        return None
    hits = covered.cumsum()
    return float((covered / total * (hits / (hits + others.cumsum()))).sum())
