"""Values of maps at random points, which tell of a mask at a share of its pixels' memory.

PointRend (arXiv 1912.08193, section 3.1) and Mask2Former (arXiv 2112.01527, section 3.3). Points
are x, y in 0..1 over a map's width and height, so a map of any size is seen at the same places;
values are interpolated between cells, and zero outside.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def at_points(maps: Tensor, points: Tensor) -> Tensor:
    """Maps (M, h, w) at points (M, P, 2), each map at its own -> (M, P)."""
    if not torch.are_deterministic_algorithms_enabled():
        grid = 2 * points.unsqueeze(1) - 1
        return F.grid_sample(maps.unsqueeze(1), grid, align_corners=False)[:, 0, 0]
    # A GPU adds up the gradient of `grid_sample` in no fixed order.
    index, weight = neighbours(points, maps.shape[1:])
    cells = maps.flatten(1).gather(1, index.flatten(1)).view_as(weight)
    return (cells * weight).sum(-1)


def at_same_points(maps: Tensor, points: Tensor) -> Tensor:
    """Maps (M, h, w), all at the same points (P, 2) -> (M, P); has no gradient that repeats."""
    grid = 2 * points[None, None] - 1
    return F.grid_sample(maps[None], grid, align_corners=False)[0, :, 0]


def neighbours(points: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The four cells around points (..., P, 2) in maps of a height and width.

    Returns:
        Their indices in the flattened map, (..., P, 4) int64, and the shares (..., P, 4) that they
        have in the value there; 0 for those outside.
    """
    height, width = size
    x, y = points[..., 0] * width - 0.5, points[..., 1] * height - 0.5
    left, top = x.floor(), y.floor()
    index, weight = [], []
    for row, row_share in ((top, top + 1 - y), (top + 1, y - top)):
        for column, column_share in ((left, left + 1 - x), (left + 1, x - left)):
            is_inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            rows, columns = row.long().clamp(0, height - 1), column.long().clamp(0, width - 1)
            index.append(rows * width + columns)
            weight.append(row_share * column_share * is_inside)
    return torch.stack(index, -1), torch.stack(weight, -1)


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
