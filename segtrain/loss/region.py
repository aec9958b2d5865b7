"""Region losses: overlap of predicted and true regions, (logits, target) -> one scalar."""

import torch
from torch import Tensor, nn

from segtrain.values import NonNegative


class Dice(nn.Module):
    """Soft Dice with squared denominator (Milletari et al., 3DV 2016, arXiv 1606.04797).

    Regions extend over all valid pixels of the batch; mean over the classes in the target.

    Args:
        smooth: added above and below the fraction.
        ignore_index: void.
    """

    def __init__(self, smooth: NonNegative, ignore_index: int) -> None:
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
        counted = torch.zeros((), device=errors.device)
        for group in groups:
            present = truth[group].sum((0, 2, 3)) > 0
            # To ask a device which classes there are would make the host wait for it.
            is_worth = present.tolist() if present.device.type == "cpu" else [True] * len(present)
            for k in (k for k, worth in enumerate(is_worth) if worth):
                # Void pixels come last in the order of errors, and change nothing before them.
                error = errors.detach()[group, k].where(valid[group], -1)
                found = jaccard_weights(error.flatten(), truth[group, k].flatten())
                weights[group, k] = found.view_as(error) * valid[group]
            share = present / present.sum().clamp(min=1)
            weights[group] *= share[:, None, None]
            counted += present.any()
        return (errors * weights).sum() / counted.clamp(min=1)


def jaccard_weights(errors: Tensor, member: Tensor) -> Tensor:
    """Errors (P,), membership (P,) of 0 and 1 -> gradient (P,) of the Lovász extension.

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
