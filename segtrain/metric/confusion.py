"""mIoU and its relatives from one confusion matrix over a whole split."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric


def confusion_matrix(
    prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int
) -> Tensor:
    """Pixel counts by (target class, predicted class), void targets left out.

    Void is counted as one more row and then dropped, which is several times faster than selecting
    the valid pixels first.

    Args:
        prediction: (...) predicted train ids.
        target: (...) train ids or ignore_index.
        num_classes: K.
        ignore_index: void.

    Returns:
        (K, K) int64.
    """
    # int16 holds (K+1)*K up to K=180; narrow indices are what makes this bound by memory less
    dtype = torch.int16 if num_classes <= 180 else torch.int32
    row = target.flatten().to(dtype).masked_fill_(target.flatten() == ignore_index, num_classes)
    cell = row.mul_(num_classes).add_(prediction.flatten().to(dtype))
    counts = torch.bincount(cell, minlength=(num_classes + 1) * num_classes)
    return counts.view(num_classes + 1, num_classes)[:num_classes]


@dataclass(frozen=True)
class Scores:
    """Fractions in 0..1. None where a class occurs neither in the truth nor in the prediction."""

    miou: float | None
    pixel_accuracy: float | None
    mean_accuracy: float | None
    fwiou: float | None
    per_class_iou: list[float | None]


def scores(matrix: Tensor) -> Scores:
    """Scores of a (K, K) count matrix (rows truth, columns prediction).

    IoU = TP / (TP + FP + FN). Classes absent from truth and prediction stay out of the mean (PASCAL
    VOC development kit; Everingham et al. 2015). Mean accuracy is over the classes in the truth,
    frequency-weighted IoU weighs by their pixels (Long et al. 2015, section 5).
    """
    counts = matrix.double().cpu()
    hits, truth, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    union = truth + predicted - hits
    iou = hits / union  # NaN where the class is absent
    return Scores(
        miou=_number(iou.nanmean()),
        pixel_accuracy=_number(hits.sum() / truth.sum()),
        mean_accuracy=_number((hits / truth).nanmean()),
        fwiou=_number((iou * truth).nansum() / truth.sum()),
        per_class_iou=[_number(value) for value in iou],
    )


def dice(matrix: Tensor) -> list[float | None]:
    """Dice coefficient of each class, which is its F1: 2 TP / (2 TP + FP + FN).

    Args:
        matrix: (K, K) counts, rows truth, columns prediction.

    Returns:
        K fractions in 0..1; None where a class occurs neither in the truth nor in the prediction.
    """
    counts = matrix.double().cpu()
    return [_number(value) for value in 2 * counts.diagonal() / (counts.sum(0) + counts.sum(1))]


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """The mean over what is a number; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _number(value: Tensor) -> float | None:
    return None if value.isnan() else value.item()


class ConfusionMatrix(Metric):
    """The matrix of a split, int64, summed over processes when computed.

    Args:
        num_classes: K.
    """

    full_state_update = False

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        zeros = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("matrix", zeros, dist_reduce_fx="sum")

    def update(self, counts: Tensor) -> None:
        """Adds the matrix (K, K) of some pixels (see `confusion_matrix`)."""
        self.matrix += counts

    def compute(self) -> Tensor:
        """(K, K) int64 over all processes."""
        return self.matrix
