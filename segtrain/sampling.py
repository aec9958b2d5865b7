"""Values of maps between their cells.

Points are x, y in 0..1 over a map's width and height, so maps of any size are seen at the same
places; values are interpolated between cells, and zero outside.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def bilinear(maps: Tensor, points: Tensor) -> Tensor:
    """Maps (M, C, h, w) at points (M, P, 2), each map at its own -> (M, C, P)."""
    if not torch.are_deterministic_algorithms_enabled():
        return F.grid_sample(maps, 2 * points.unsqueeze(1) - 1, align_corners=False)[:, :, 0]
    # A GPU adds up the gradient of `grid_sample` in no fixed order.
    index, weight = (part.unsqueeze(1) for part in neighbours(points, maps.shape[2:]))
    index = index.flatten(2).expand(-1, maps.shape[1], -1)
    cells = maps.flatten(2).gather(2, index).unflatten(2, weight.shape[2:])
    return (cells * weight).sum(3)


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
