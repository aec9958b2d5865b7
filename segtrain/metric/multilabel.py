"""Scores of classes that may overlap, at thresholds, from int64 counts over a whole split."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

GRID = tuple(step / 100 for step in range(1, 100))  # thresholds that are tried
DEFAULT = 0.5


class ThresholdCounts(Metric):
    """How many pixels score in between neighbouring thresholds, by class and truth.

    Args:
        thresholds: sorted, T in all; a pixel is predicted where its score is not below.
        num_classes: K.
    """

    full_state_update = False

    def __init__(self, thresholds: list[float], num_classes: int) -> None:
        super().__init__()
        self.register_buffer("edges", torch.tensor(thresholds, dtype=torch.float32), False)
        shape = (num_classes, 2, len(thresholds) + 1)
        zeros = torch.zeros(shape, dtype=torch.int64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def of_image(self, scores: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
        """The counts (K, 2, T + 1) int64 of one image, to be added.

        Args:
            scores: (K, H, W) float32 in 0..1.
            masks: (K, H, W) bool.
            valid: (H, W) bool.
        """
        classes, _, bins = self.counts.shape
        place = torch.bucketize(scores.float().contiguous(), self.edges, right=True)
        first = torch.arange(classes, device=scores.device).view(-1, 1, 1) * 2
        cell = ((first + masks) * bins + place)[:, valid]
        counts = torch.bincount(cell.flatten(), minlength=classes * 2 * bins)
        return counts.view(classes, 2, bins)

    def update(self, counts: Tensor) -> None:
        """Adds the counts of an image (see `of_image`)."""
        self.counts += counts

    def compute(self) -> Tensor:
        """(K, 2, T + 1) int64 over all processes, others before covered pixels."""
        return self.counts


class Hits(NamedTuple):
    """Pixels by class, and by threshold where there are several."""

    right: np.ndarray  # TP
    false: np.ndarray  # FP
    missed: np.ndarray  # FN

    @property
    def iou(self) -> np.ndarray:
        """NaN where the class is neither there nor predicted, as in what follows."""
        return share(self.right, self.right + self.false + self.missed)

    @property
    def dice(self) -> np.ndarray:
        """F1 too."""
        return share(2 * self.right, 2 * self.right + self.false + self.missed)

    @property
    def precision(self) -> np.ndarray:
        return share(self.right, self.right + self.false)

    @property
    def recall(self) -> np.ndarray:
        return share(self.right, self.right + self.missed)


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def hits(counts: np.ndarray) -> Hits:
    """By class and threshold (K, T), of counts (K, 2, T + 1)."""
    above = counts[..., ::-1].cumsum(-1)[..., ::-1][..., 1:]
    return Hits(above[:, 1], above[:, 0], counts[:, 1].sum(-1, keepdims=True) - above[:, 1])


def best_thresholds(counts: np.ndarray, thresholds: list[float]) -> list[float]:
    """For each class the threshold with the largest Dice, which is F1; of equal ones the one
    nearest to 0.5. A class that the truth never shows keeps 0.5.
    """
    chosen = []
    for dice, covered in zip(hits(counts).dice, counts[:, 1].sum(-1), strict=True):
        best = [t for t, value in zip(thresholds, dice, strict=True) if value == np.nanmax(dice)] \
            if covered else []  # fmt: skip
        chosen.append(min(best, key=lambda t: abs(t - DEFAULT), default=DEFAULT))
    return chosen
