"""Losses of one yes or no a class and pixel: pixel terms, and regions as a whole.

Pixel terms take logits, 0.0 or 1.0 as truth, and which pixels are valid, and return the loss of
every pixel and class; region terms return a scalar. N images, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.values import Fraction, NonNegative


class BinaryCrossEntropy(nn.Module):
    """Sigmoid cross-entropy.

    Args:
        positive_weights: one factor a class of the pixels that it covers, for rare classes; None
            for 1.
    """

    def __init__(self, positive_weights: list[NonNegative] | None) -> None:
        super().__init__()
        weights = None
        if positive_weights is not None:
            weights = torch.tensor(positive_weights).float().view(-1, 1, 1)
        self.register_buffer("positive_weights", weights, persistent=False)

    def forward(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Logits and truth (N, K, H, W) float32 -> (N, K, H, W)."""
        return F.binary_cross_entropy_with_logits(
            logits, truth, pos_weight=self.positive_weights, reduction="none"
        )


class BinaryFocal(nn.Module):
    """Focal loss (Lin et al., ICCV 2017, arXiv 1708.02002, equation 5).

    -alpha_t (1 - p_t)^gamma log(p_t), where p_t is the probability of what is true, and alpha_t is
    alpha for covered pixels and 1 - alpha for others.

    Args:
        alpha: 0.25 in the paper; None: without the factor (equation 4).
        gamma: 2 in the paper; 0: cross-entropy.
    """

    def __init__(self, alpha: Fraction | None, gamma: NonNegative) -> None:
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma

    def forward(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Logits and truth (N, K, H, W) float32 -> (N, K, H, W)."""
        entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        # 1 - p_t as a sigmoid of its own: 1 - exp(-entropy) would have no digits left near 0.
        missed = torch.sigmoid(logits * (1 - 2 * truth))
        loss = missed.pow(self.gamma) * entropy
        if self.alpha is None:
            return loss
        return loss * (self.alpha * truth + (1 - self.alpha) * (1 - truth))


class BinaryDice(nn.Module):
    """Soft Dice loss, with squares in the denominator (Milletari et al., V-Net, 3DV 2016, 3).

    Regions extend over all valid pixels of the batch; mean over the classes.

    Args:
        smooth: added above and below the fraction, so that an absent class has no loss where
            nothing is predicted.
    """

    def __init__(self, smooth: NonNegative) -> None:
        super().__init__()
        self.smooth = smooth

    def forward(self, logits: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
        """Logits and truth (N, K, H, W) float32, valid (N, H, W) -> scalar, 0 if all is void."""
        found, truth = probabilities(logits, truth, valid)
        overlap = (found * truth).sum((0, 2, 3))
        size = (found.square() + truth).sum((0, 2, 3))
        return one_minus(2 * overlap + self.smooth, size + self.smooth, valid)


class Tversky(nn.Module):
    """Tversky loss (Salehi et al., MLMI 2017, arXiv 1706.05721, equation 2), of each class.

    1 - sum(p g) / (sum(p g) + alpha sum(p (1 - g)) + beta sum((1 - p) g)). Regions extend over all
    valid pixels of the batch; mean over the classes.

    Args:
        alpha: of false positives; 0.3 in the paper's best result.
        beta: of false negatives; 0.7 there. 0.5 and 0.5 are Dice.
        smooth: added above and below the fraction.
    """

    def __init__(self, alpha: NonNegative, beta: NonNegative, smooth: NonNegative) -> None:
        super().__init__()
        self.alpha = alpha
        self.beta = beta
        self.smooth = smooth

    def forward(self, logits: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
        """Logits and truth (N, K, H, W) float32, valid (N, H, W) -> scalar, 0 if all is void."""
        found, truth = probabilities(logits, truth, valid)
        overlap = (found * truth).sum((0, 2, 3))
        false = found.sum((0, 2, 3)) - overlap
        missed = truth.sum((0, 2, 3)) - overlap
        size = overlap + self.alpha * false + self.beta * missed
        return one_minus(overlap + self.smooth, size + self.smooth, valid)


def probabilities(logits: Tensor, truth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities and truth, both 0 where void."""
    counted = valid.unsqueeze(1)
    return logits.sigmoid() * counted, truth * counted


def one_minus(above: Tensor, below: Tensor, valid: Tensor) -> Tensor:
    """The mean over classes (K,) of 1 - above / below; 0 where no pixel is valid."""
    share = above / below.clamp(min=1e-6)
    return (1 - share).mean() * valid.any()
