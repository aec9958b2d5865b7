"""Mask2Former's pixel decoder: deformable attention over three maps, and a feature pyramid's step
to stride 4."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segtrain.architecture.blocks import at_least_float32
from segtrain.architecture.mask_classification.deformable import (
    DeformableAttention,
    centres,
    sine_positions,
)
from segtrain.contracts import resize

LEVELS = 3  # maps that attend to one another, of strides 32, 16 and 8
GROUPS = 32  # of group norm


class EncoderLayer(nn.Module):
    """Deformable attention and two linear layers, a norm behind each sum.

    Args:
        channels: C.
        heads: of the attention.
        width: between the linear layers.
    """

    def __init__(self, channels: int, heads: int, width: int) -> None:
        super().__init__()
        self.attention = DeformableAttention(channels, heads, LEVELS)
        self.norm1 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, channels))
        self.norm2 = nn.LayerNorm(channels)
        for layer in (self.mlp[0], self.mlp[2]):
            nn.init.xavier_uniform_(layer.weight)

    def forward(
        self, x: Tensor, positions: Tensor, places: Tensor, sizes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """Tokens (N, L, C) and their positions (L, C) -> (N, L, C)."""
        x = self.norm1(x + self.attention(x + positions, x, places, sizes))
        return self.norm2(x + self.mlp(x))


class PixelDecoder(nn.Module):
    """Maps of strides 4, 8, 16 and 32 -> those of which queries learn (section 3.2.1, appendix).

    Args:
        widths: of the maps, that of stride 4 first.
        channels: C, of all that comes out.
        heads, layers, width: of the attention layers.
    """

    def __init__(
        self, widths: Sequence[int], channels: int, heads: int, layers: int, width: int
    ) -> None:
        super().__init__()
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Conv2d(found, channels, 1), nn.GroupNorm(GROUPS, channels))
            for found in widths[:0:-1]
        )
        self.level_embedding = nn.Parameter(torch.randn(LEVELS, channels))
        self.layers = nn.ModuleList(EncoderLayer(channels, heads, width) for _ in range(layers))
        self.lateral = nn.Sequential(
            nn.Conv2d(widths[0], channels, 1, bias=False), nn.GroupNorm(GROUPS, channels)
        )
        self.smooth = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(GROUPS, channels),
            nn.ReLU(),
        )
        self.mask_projection = nn.Conv2d(channels, channels, 1)
        for projection, _ in self.projections:
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)
        for layer in (self.lateral[0], self.smooth[0], self.mask_projection):
            nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.zeros_(self.mask_projection.bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Four maps -> those of strides 32, 16 and 8 (N, C, h, w), and what masks look for at
        stride 4 (N, C, h, w).

        In float32 also below autocast, as the authors have it: places between cells need it.
        """
        with torch.autocast(maps[0].device.type, enabled=False):
            finest, *others = (at_least_float32(m) for m in maps)
            return self._forward(finest, others[::-1])

    def _forward(self, finest: Tensor, coarse: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        projected = [projection(m) for projection, m in zip(self.projections, coarse, strict=True)]
        sizes = [tuple(m.shape[2:]) for m in projected]
        number, channels = projected[0].shape[:2]
        positions = torch.cat(
            [
                sine_positions(size, channels, finest.device) + level
                for size, level in zip(sizes, self.level_embedding, strict=True)
            ]
        )
        places = centres(sizes, finest.device)
        x = torch.cat([m.flatten(2).transpose(1, 2) for m in projected], 1)
        for layer in self.layers:
            x = layer(x, positions, places, sizes)
        encoded = [
            part.transpose(1, 2).reshape(number, channels, *size)
            for part, size in zip(x.split([r * c for r, c in sizes], 1), sizes, strict=True)
        ]
        lateral = self.lateral(finest)
        joined = lateral + resize(encoded[-1], lateral.shape[2:], align_corners=False)
        return encoded, self.mask_projection(self.smooth(joined))
