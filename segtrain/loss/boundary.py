"""Where classes meet: labels, their loss, and the labels that are sure to lie there.

The terms that PIDNet adds (Xu et al., CVPR 2023, arXiv 2206.02066).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

WIDTH = 4  # pixels, of a boundary
SURE = 0.8  # from this probability on, pixels lie at a boundary


def boundaries(target: Tensor, ignore_index: int) -> Tensor:
    """(N, H, W) train ids -> (N, H, W) float32, 1 where classes meet, WIDTH pixels wide.

    Where a class meets void is no boundary. Of the crop, as MMSegmentation has it; the authors'
    code finds them by Canny's detector in whole images, without six pixels at the rim.
    """
    found = torch.zeros_like(target, dtype=torch.bool)
    valid = target != ignore_index

    def differ(first: tuple[slice, slice], second: tuple[slice, slice]) -> Tensor:
        a, b = (slice(None), *first), (slice(None), *second)
        return (target[a] != target[b]) & valid[a] & valid[b]

    every, start, end = slice(None), slice(None, -1), slice(1, None)
    found[:, 1:] |= differ((end, every), (start, every))
    found[:, :, :-1] |= differ((every, start), (every, end))
    found[:, :-1, :-1] |= differ((start, start), (end, end))
    found[:, :-1, 1:] |= differ((start, end), (end, start))
    before, after = WIDTH // 2, (WIDTH - 1) // 2
    padded = F.pad(found[:, None].float(), (before, after, before, after))
    return F.max_pool2d(padded, WIDTH, stride=1)[:, 0]


def boundary_loss(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Binary cross-entropy, boundaries and the rest weighted by each other's share of the batch.

    Args:
        logits: (N, 1, H, W) float32.
        target: (N, H, W) train ids.
        ignore_index: void.
    """
    truth = boundaries(target, ignore_index)
    share = truth.mean()
    weight = torch.where(truth > 0, 1 - share, share)
    return F.binary_cross_entropy_with_logits(logits[:, 0], truth, weight)


def labels_at_boundaries(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """The labels (N, H, W), void but where logits (N, 1, H, W) are sure of a boundary."""
    is_sure = logits.detach()[:, 0].sigmoid() > SURE
    return target.where(is_sure, ignore_index)
