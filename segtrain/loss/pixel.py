"""Pixel-wise losses: (logits, target) -> (sum of the loss, sum of the pixel weights)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CrossEntropy(nn.Module):
    """Softmax cross-entropy over the valid pixels.

    Args:
        class_weights: one factor a class, or None; a weighted mean divides by the summed weights.
        label_smoothing: share of the target spread evenly over all classes, 0 for none.
        ignore_index: void pixels, which count neither above nor below.
    """

    def __init__(
        self, class_weights: list[float] | None, label_smoothing: float, ignore_index: int
    ) -> None:
        super().__init__()
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K, H, W) float32, target (N, H, W) train ids -> two scalars, sum and weight.

        Both are 0 where every pixel is void.
        """
        target = target.long()
        total = F.cross_entropy(
            logits,
            target,
            weight=self.class_weights,
            ignore_index=self.ignore_index,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        valid = target != self.ignore_index
        if self.class_weights is None:
            return total, valid.sum()
        return total, self.class_weights[target[valid]].sum()
