"""Expected calibration error of pixels (Guo et al. 2017, arXiv 1706.04599, section 2)."""

import torch
from torch import Tensor
from torchmetrics import Metric

from segtrain.metric.processes import fixed_point

BINS = 15  # of equal width, as in the paper's tables
BITS = 28  # of a confidence's fraction: exact from 1/32 on, with room for 34 billion pixels


def confidence(scores: Tensor, probabilities: bool) -> Tensor:
    """(H, W) probability of the class that wins at each pixel.

    Args:
        scores: (K, H, W) float32.
        probabilities: whether scores are probabilities; else they are logits.
    """
    top = scores.amax(0)
    if probabilities:
        return top.clamp(0, 1)  # a mean of several looks may be a rounding above
    return (scores - top).exp_().sum(0).reciprocal_()


def calibration_counts(
    confidences: Tensor, prediction: Tensor, target: Tensor, ignore_index: int
) -> Tensor:
    """What the error is computed from, by bin: pixels, those that are right, their confidence.

    Bin m of M holds confidences in ((m - 1) / M, m / M]. Void is one more bin, then dropped.

    Args:
        confidences: (...) of the predicted class, in 0..1.
        prediction: (...) predicted train ids.
        target: (...) train ids or ignore_index.
        ignore_index: void.

    Returns:
        (3, BINS) int64; confidences as sums of `fixed_point` with BITS.
    """
    bins = (confidences.double() * BINS).ceil_().to(torch.int64).sub_(1).clamp_(0, BINS - 1)
    bins = bins.masked_fill_(target == ignore_index, BINS).flatten()
    right = (prediction == target).flatten()
    wrong, hits = torch.bincount(2 * bins + right, minlength=2 * BINS + 2).view(-1, 2).unbind(1)
    sums = torch.zeros_like(hits).index_add_(0, bins, fixed_point(confidences, BITS).flatten())
    return torch.stack([wrong + hits, hits, sums])[:, :BINS]


class CalibrationError(Metric):
    """The mean over pixels of how far accuracy is from confidence, bin by bin."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        zeros = torch.zeros(3, BINS, dtype=torch.int64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, counts: Tensor) -> None:
        """Adds the counts (3, BINS) of some pixels (see `calibration_counts`)."""
        self.counts += counts

    def compute(self) -> float | None:
        """In 0..1 over all processes; None where all is void."""
        pixels, hits, sums = self.counts.tolist()
        gaps = [abs(right - total / 2**BITS) for right, total in zip(hits, sums, strict=True)]
        return sum(gaps) / sum(pixels) if any(pixels) else None
