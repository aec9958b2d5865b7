"""Values of maps at random points, which tell of a mask at a share of its pixels' memory.

PointRend (arXiv 1912.08193, section 3.1) and Mask2Former (arXiv 2112.01527, section 3.3). Points
are those of `segtrain.sampling`.
"""

import torch
from torch import Tensor

from segtrain.sampling import bilinear


def at_points(maps: Tensor, points: Tensor) -> Tensor:
    """Maps (M, h, w) at points (M, P, 2), each map at its own -> (M, P)."""
    return bilinear(maps.unsqueeze(1), points)[:, 0]


@torch.no_grad()
def uncertain_points(
    logits: Tensor, num_points: int, oversampling: float, importance: float
) -> Tensor:
    """Random points of masks, most of them where the masks are least certain.

    Args:
        logits: (M, h, w) of masks.
        num_points: P, of each mask.
        oversampling: times P points are drawn, of which the least certain are taken.
        importance: share of the P points that are taken so; the others are anywhere.

    Returns:
        (M, P, 2).
    """
    num_masks, num_drawn = len(logits), int(num_points * oversampling)
    num_uncertain = int(num_points * importance)
    drawn = torch.rand(num_masks, num_drawn, 2, device=logits.device)
    uncertainty = -at_points(logits, drawn).abs()
    chosen = uncertainty.topk(num_uncertain, dim=1).indices.unsqueeze(-1).expand(-1, -1, 2)
    anywhere = torch.rand(num_masks, num_points - num_uncertain, 2, device=logits.device)
    return torch.cat([drawn.gather(1, chosen), anywhere], dim=1)
