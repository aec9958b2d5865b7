"""Multi-scale deformable attention: Zhu et al., Deformable DETR: Deformable Transformers for
End-to-End Object Detection, ICLR 2021 (arXiv 2010.04159)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segtrain.sampling import bilinear

POINTS = 4  # that a head looks at, of each map


class DeformableAttention(nn.Module):
    """Every token looks at a few points around its place on each of several maps (section 4.1).

    Args:
        channels: C, of the tokens.
        heads: which share the channels.
        levels: how many maps there are.
    """

    def __init__(self, channels: int, heads: int, levels: int) -> None:
        super().__init__()
        self.heads = heads
        self.levels = levels
        self.offsets = nn.Linear(channels, heads * levels * POINTS * 2)
        self.weights = nn.Linear(channels, heads * levels * POINTS)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        self._init()

    def _init(self) -> None:
        """Each head looks in a direction of its own, at 1, 2, ... cells from the place."""
        for layer in (self.offsets, self.weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], 1)  # (heads, 2) x y
        direction = direction / direction.abs().amax(1, keepdim=True)
        steps = torch.arange(1, POINTS + 1).view(1, 1, POINTS, 1)
        places = (direction[:, None, None] * steps).expand(-1, self.levels, -1, -1)
        with torch.no_grad():
            self.offsets.bias.copy_(places.reshape(-1))
        for layer in (self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, queries: Tensor, tokens: Tensor, places: Tensor, sizes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """What every token finds.

        Args:
            queries: (N, L, C), the tokens with their positions.
            tokens: (N, L, C), those of the maps one after another, row by row.
            places: (L, 2) x y of the tokens, 0 to 1 over the image.
            sizes: rows and columns of the maps.

        Returns:
            (N, L, C).
        """
        number, length, _ = queries.shape
        shape = (number, length, self.heads, self.levels, POINTS)
        offsets = self.offsets(queries).view(*shape, 2)
        weights = self.weights(queries).view(*shape[:3], -1).softmax(3).view(shape)
        values = self.value(tokens).view(number, length, self.heads, -1)
        sampled = sampled_sum(values, sizes, places[:, None, None], offsets, weights)
        return self.output(sampled)


def sampled_sum(
    values: Tensor,
    sizes: Sequence[tuple[int, int]],
    places: Tensor,
    offsets: Tensor,
    weights: Tensor,
) -> Tensor:
    """Weighted sums of bilinear samples of M maps, zero outside (equation 3).

    Args:
        values: (N, S, heads, D) of the cells of all maps, one map after another, row by row.
        sizes: rows and columns of the maps.
        places: (L, 1, 1, 2) x y, 0 to 1 over each of the maps.
        offsets: (N, L, heads, M, points, 2) x y in cells of their map.
        weights: (N, L, heads, M, points).

    Returns:
        (N, L, heads * D).
    """
    number, length, heads, _, points = weights.shape
    total: Tensor | None = None
    cells = [rows * columns for rows, columns in sizes]
    for level, (part, (rows, columns)) in enumerate(
        zip(values.split(cells, 1), sizes, strict=True)
    ):
        maps = part.permute(0, 2, 3, 1).reshape(number * heads, -1, rows, columns)
        x, y = (
            places[..., axis] + offsets[:, :, :, level, :, axis] / side
            for axis, side in enumerate((columns, rows))
        )
        looked = torch.stack([x, y], 4).transpose(1, 2).reshape(number * heads, -1, 2)
        found = bilinear(maps, looked).unflatten(2, (length, points))  # (N * heads, D, L, points)
        weight = weights[:, :, :, level].transpose(1, 2).reshape(-1, 1, length, points)
        summed = (found * weight).sum(3)
        total = summed if total is None else total + summed
    return total.view(number, -1, length).transpose(1, 2)


def centres(sizes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """(L, 2) x y of the centres of all maps' cells, 0 to 1 over the image."""
    places = []
    for rows, columns in sizes:
        y, x = ((torch.arange(side, device=device) + 0.5) / side for side in (rows, columns))
        places.append(torch.stack(torch.meshgrid(x, y, indexing="xy"), 2).view(-1, 2))
    return torch.cat(places)


def sine_positions(size: tuple[int, int], channels: int, device: torch.device) -> Tensor:
    """Sines and cosines of where cells lie on a map, for y and then for x: Carion et al.,
    End-to-End Object Detection with Transformers, ECCV 2020 (arXiv 2005.12872, appendix A.4).

    Args:
        size: rows and columns.
        channels: C, a multiple of 4.
        device: of the result.

    Returns:
        (rows * columns, C).
    """
    pairs = torch.arange(channels // 4, device=device)
    wavelength = 10_000 ** (4 * pairs / channels)
    coded = []
    for side in size:
        place = torch.arange(1, side + 1, device=device) / (side + 1e-6) * (2 * math.pi)
        angle = place[:, None] / wavelength
        coded.append(torch.stack([angle.sin(), angle.cos()], 2).flatten(1))  # (side, C / 2)
    rows, columns = size
    y = coded[0][:, None].expand(-1, columns, -1)
    x = coded[1][None].expand(rows, -1, -1)
    return torch.cat([y, x], 2).view(rows * columns, channels)
