"""Region losses: overlap of predicted and true regions, (logits, target) -> one scalar."""

import torch
from torch import Tensor, nn


class Dice(nn.Module):
    """Soft Dice with squared denominator (Milletari et al., 3DV 2016, arXiv 1606.04797).

    Regions extend over all valid pixels of the batch; mean over the classes in the target.

    Args:
        smooth: added above and below the fraction.
        ignore_index: void.
    """

    def __init__(self, smooth: float, ignore_index: int) -> None:
        super().__init__()
        self.smooth = smooth
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits (N, K, H, W) float32, target (N, H, W) train ids -> scalar, 0 if all is void."""
        valid = target != self.ignore_index
        truth = one_hot(target, valid, logits)
        probabilities = logits.softmax(1) * valid.unsqueeze(1)
        overlap = (probabilities * truth).sum((0, 2, 3))
        area = truth.sum((0, 2, 3))
        # At least 1 where the class is present; the bound only averts 0 / 0 for the others.
        size = (probabilities.square().sum((0, 2, 3)) + area).clamp(min=1)
        dice = (2 * overlap + self.smooth) / (size + self.smooth)
        present = area > 0
        return ((1 - dice) * present).sum() / present.sum().clamp(min=1)


class LovaszSoftmax(nn.Module):
    """Lovász extension of the Jaccard loss (Berman et al., CVPR 2018, arXiv 1705.08790).

    Mean over the classes in the target.

    Args:
        per_image: regions end at the image: mean over the images that have valid pixels. Otherwise
            they extend over the whole batch.
        ignore_index: void.
    """

    def __init__(self, per_image: bool, ignore_index: int) -> None:
        super().__init__()
        self.per_image = per_image
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits (N, K, H, W) float32, target (N, H, W) train ids -> scalar, 0 if all is void."""
        valid = target != self.ignore_index
        truth = one_hot(target, valid, logits)
        errors = (truth - logits.softmax(1)).abs()
        # The extension is linear in the errors of one order, so the weights need no gradient.
        weights = torch.zeros_like(errors)
        groups = [slice(n, n + 1) for n in range(len(target))] if self.per_image else [slice(None)]
        counted = 0
        for group in groups:
            inside = valid[group]
            present = target[group][inside].unique().tolist()
            counted += bool(present)
            for k in present:
                error, member = errors.detach()[group, k][inside], truth[group, k][inside]
                weights[group, k][inside] = jaccard_weights(error, member) / len(present)
        return (errors * weights).sum() / max(counted, 1)


def jaccard_weights(errors: Tensor, member: Tensor) -> Tensor:
    """Errors (P,), membership (P,) of 0 and 1 with a 1 -> gradient (P,) of the Lovász extension.

    Pixels turn wrong in order of falling error. With f of the n members and b others wrong, the
    Jaccard loss is 1 - (n - f) / (n + b); a pixel's weight is what it adds to that.
    """
    order = errors.argsort(descending=True)
    is_member = member[order] > 0
    wrong = is_member.cumsum(0)
    rank = torch.arange(1, len(errors) + 1, device=errors.device)
    right = (wrong[-1] - wrong).to(errors.dtype)
    union = (wrong[-1] + rank - wrong).to(errors.dtype)
    # The differences in closed form: those of rounded losses would drown in float32 noise, as
    # they are about 1 / P.
    other = right / union / (union - 1).clamp(min=1)
    added = torch.where(is_member, 1 / union, other)
    return torch.empty_like(errors).scatter_(0, order, added)


def one_hot(target: Tensor, valid: Tensor, logits: Tensor) -> Tensor:
    """Target (N, H, W), valid (N, H, W) -> (N, K, H, W) like the logits; void is 0 everywhere."""
    index = target.long().where(valid, 0).unsqueeze(1)
    return torch.zeros_like(logits).scatter_(1, index, valid.unsqueeze(1).to(logits.dtype))
