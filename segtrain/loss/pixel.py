"""Pixel-wise losses: (logits, target) -> (sum of the loss, sum of the pixel weights).

None asks the device how many pixels are valid, which would make the host wait for it.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.values import Fraction, NonNegative, ProperFraction, Share

# A rule stands for the numbers that `segtrain.assembly.resolve_class_weights` puts in its place.
ClassWeights = list[NonNegative] | Literal["median_frequency", "sqrt_median_frequency"] | None


class CrossEntropy(nn.Module):
    """Softmax cross-entropy over the valid pixels.

    Args:
        class_weights: one factor a class, or None; a weighted mean divides by the summed weights.
        label_smoothing: share of the target spread evenly over all classes, 0 for none.
        ignore_index: void pixels, which count neither above nor below.
    """

    separable: bool = True
    """Pixels count whatever the others are, so it can be computed part by part."""

    def __init__(
        self, class_weights: ClassWeights, label_smoothing: ProperFraction, ignore_index: int
    ) -> None:
        super().__init__()
        weights = None if class_weights is None else torch.tensor(class_weights).float()
        self.register_buffer("class_weights", weights, persistent=False)
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K, H, W) float32, target (N, H, W) train ids -> two scalars, sum and weight.

        Both are 0 where every pixel is void.
        """
        target = target.long()
        # The operation's own sum is one of atomic additions on a GPU, in no fixed order.
        total = F.cross_entropy(
            logits,
            target,
            weight=self.class_weights,
            ignore_index=self.ignore_index,
            reduction="none",
            label_smoothing=self.label_smoothing,
        ).sum()
        return total, self.weight(target)

    def weight(self, target: Tensor) -> Tensor:
        """The sum of the weights of the labels' (N, H, W) pixels."""
        target = target.long()
        valid = target != self.ignore_index
        if self.class_weights is None:
            return valid.sum()
        return (self.class_weights[target.where(valid, 0)] * valid).sum()

    def weighted(self, logits: Tensor, target: Tensor, weight: None) -> tuple[Tensor, Tensor]:
        """As `forward`, of a part of the batch; all pixels count."""
        return self(logits, target)

    def of_losses(self, losses: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward` without smoothing, from every pixel's loss (N, H, W), 0 where it is void."""
        target = target.long()
        valid = target != self.ignore_index
        if self.class_weights is None:
            return losses.sum(), valid.sum()
        weight = self.class_weights[target.where(valid, 0)] * valid
        return (losses * weight).sum(), weight.sum()


class OhemCrossEntropy(nn.Module):
    """Cross-entropy over the hard valid pixels: online hard example mining.

    Shrivastava et al., CVPR 2016; for pixels (bootstrapping) Wu et al., arXiv 1605.06885, whose
    pixels compete within one image. So what is kept depends neither on the number of processes nor
    on the parts in which a batch is computed.

    Args:
        threshold: a pixel is hard if its true class has a lower probability; None: none is.
        min_kept: share of an image's valid pixels, in (0, 1], that is kept at least, hardest first.
        class_weights: one factor a class, or None; they weigh kept pixels and select none.
        ignore_index: void pixels, which are never kept.
    """

    separable: bool = False
    """Pixels of an image compete to be kept: `losses` and `select` before all."""

    def __init__(
        self,
        threshold: Fraction | None,
        min_kept: Share,
        class_weights: ClassWeights,
        ignore_index: int,
    ) -> None:
        super().__init__()
        if not 0 < min_kept <= 1:
            raise ValueError(f"min_kept is a share in (0, 1], not {min_kept}")
        weights = None if class_weights is None else torch.tensor(class_weights).float()
        self.register_buffer("class_weights", weights, persistent=False)
        self.threshold = threshold
        self.min_kept = min_kept
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K, H, W) float32, target (N, H, W) train ids -> two scalars, sum and weight.

        Both are 0 where every pixel is void.
        """
        return self.of_losses(self.losses(logits, target), target)

    def of_losses(self, losses: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, from every pixel's loss (N, H, W), 0 where it is void."""
        weight = self.select(losses.detach(), target)
        return (losses * weight).sum(), weight.sum()

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, H, W) of every pixel, 0 where it is void."""
        return F.cross_entropy(
            logits, target.long(), ignore_index=self.ignore_index, reduction="none"
        )

    def select(self, losses: Tensor, target: Tensor) -> Tensor:
        """(N, H, W) weight of every pixel of the batch, 0 where it is not kept."""
        target = target.long()
        valid = target != self.ignore_index
        weight = self._kept(losses.flatten(1), valid.flatten(1)).view_as(losses)
        if self.class_weights is not None:
            weight = weight * self.class_weights[target.where(valid, 0)]
        return weight

    def weighted(self, logits: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, of a part of the batch with the weights that `select` gave it."""
        return (self.losses(logits, target) * weight).sum(), weight.sum()

    def _kept(self, losses: Tensor, valid: Tensor) -> Tensor:
        """Unweighted losses (N, P) and which count -> (N, P), 1 where kept and 0 elsewhere."""
        hardness = losses.where(valid, -1)
        count = (valid.sum(1, keepdim=True).double() * self.min_kept).ceil()
        most = math.ceil(self.min_kept * losses.shape[1])  # were all of them valid
        hardest = hardness.topk(most).indices
        rank = torch.arange(most, device=losses.device)
        kept = torch.zeros_like(losses).scatter_(1, hardest, (rank < count).to(losses.dtype))
        if self.threshold is None:
            return kept
        # Those below the threshold are the hardest ones, so they hold the others or are among them.
        return kept.where((torch.exp(-losses) >= self.threshold) | ~valid, 1)
