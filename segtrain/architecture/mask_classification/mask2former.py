"""Mask2Former: Cheng et al., Masked-attention Mask Transformer for Universal Image Segmentation,
CVPR 2022 (arXiv 2112.01527)."""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.architecture.backbone import TimmBackbone
from segtrain.architecture.mask_classification.classifier import (
    MaskClassifier,
    mask_logits,
    mask_mlp,
)
from segtrain.architecture.mask_classification.deformable import sine_positions
from segtrain.architecture.mask_classification.pixel_decoder import GROUPS, LEVELS, PixelDecoder
from segtrain.contracts import Queries
from segtrain.errors import UserError
from segtrain.values import Count, Rule

Channels = Annotated[
    Count, Rule(f"that is a multiple of {GROUPS}", lambda number: number % GROUPS == 0)
]


class Attention(nn.Module):
    """Of several heads. The parameters of `nn.MultiheadAttention`, whose graphs are for one batch.

    Args:
        channels: C, which the heads share.
        heads: how many.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        for weight in (self.in_proj_weight, self.out_proj.weight):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None) -> Tensor:
        """(N, Q, C), and twice (N, L, C) -> (N, Q, C); seen (N, 1, Q, L) is true where they look,
        None: everywhere."""
        number, count, channels = queries.shape
        projections = zip(self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
        query, key, value = (
            F.linear(x, weight, bias)
            .view(number, -1, self.heads, channels // self.heads)
            .transpose(1, 2)
            for x, (weight, bias) in zip((queries, keys, values), projections, strict=True)
        )
        found = F.scaled_dot_product_attention(query, key, value, seen)
        return self.out_proj(found.transpose(1, 2).reshape(number, count, channels))


class DecoderLayer(nn.Module):
    """Queries look at where their masks are, then at one another (section 3.2, figure 2).

    Args:
        channels: C.
        heads: of the attentions.
        width: between the linear layers.
    """

    def __init__(self, channels: int, heads: int, width: int) -> None:
        super().__init__()
        self.cross_attention = Attention(channels, heads)
        self.cross_norm = nn.LayerNorm(channels)
        self.self_attention = Attention(channels, heads)
        self.self_norm = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, channels))
        self.mlp_norm = nn.LayerNorm(channels)
        for layer in (self.mlp[0], self.mlp[2]):
            nn.init.xavier_uniform_(layer.weight)

    def forward(
        self, x: Tensor, positions: Tensor, cells: Tensor, cell_positions: Tensor, seen: Tensor
    ) -> Tensor:
        """What the queries are after this layer.

        Args:
            x: (N, Q, C).
            positions: (N, Q, C) of the queries.
            cells: (N, L, C) of a map.
            cell_positions: (L, C).
            seen: (N, 1, Q, L), true where a query looks.
        """
        found = self.cross_attention(x + positions, cells + cell_positions, cells, seen)
        x = self.cross_norm(x + found)
        placed = x + positions
        x = self.self_norm(x + self.self_attention(placed, placed, x, None))
        return self.mlp_norm(x + self.mlp(x))


class Mask2Former(MaskClassifier):
    """Queries that look only at where their own masks are, over three maps in turn.

    Args:
        backbone: with maps of strides 4, 8, 16 and 32.
        channels: of the pixel decoder and of the queries, a multiple of 32.
        heads: of all attentions.
        num_queries: Q; 100 in the paper, 200 for panoptic segmentation with Swin-L.
        encoder_layers, encoder_width: of the pixel decoder's attention layers.
        decoder_layers, decoder_width: of the queries' layers.
        num_classes: K.

    Raises:
        UserError: the backbone has other strides, or heads cannot share the channels.
    """

    def __init__(
        self,
        backbone: TimmBackbone,
        channels: Channels,
        heads: Count,
        num_queries: Count,
        encoder_layers: Count,
        encoder_width: Count,
        decoder_layers: Count,
        decoder_width: Count,
        num_classes: int,
    ) -> None:
        if backbone.strides != [4, 8, 16, 32]:
            raise UserError(f"Mask2Former takes maps of strides 4, 8, 16 and 32, '{backbone.name}' "
                            f"gives {backbone.strides}; set architecture.backbone.output_stride=32"
                            ", or architecture/backbone=vit_pyramid")  # fmt: skip
        if channels % heads:
            raise UserError(f"architecture.heads={heads} cannot share architecture.channels="
                            f"{channels}; set a number that divides it")  # fmt: skip
        super().__init__(backbone)
        self.pixel_decoder = PixelDecoder(
            backbone.channels, channels, heads, encoder_layers, encoder_width
        )
        self.query_features = nn.Parameter(torch.randn(num_queries, channels))
        self.query_positions = nn.Parameter(torch.randn(num_queries, channels))
        self.level_embedding = nn.Parameter(torch.randn(LEVELS, channels))
        self.decoder = nn.ModuleList(
            DecoderLayer(channels, heads, decoder_width) for _ in range(decoder_layers)
        )
        self.norm = nn.LayerNorm(channels)
        self.classifier = nn.Linear(channels, num_classes + 1)
        self.mask_mlp = mask_mlp(channels, nn.ReLU)

    def layers(self, image: Tensor) -> list[Queries]:
        """What the queries say before the first layer and after each; see `MaskClassifier`."""
        maps, pixels = self.pixel_decoder(self._maps(image))
        number, channels = pixels.shape[:2]
        sizes = [tuple(m.shape[2:]) for m in maps]
        cells = [
            m.flatten(2).transpose(1, 2) + level
            for m, level in zip(maps, self.level_embedding, strict=True)
        ]
        positions = [sine_positions(size, channels, image.device) for size in sizes]
        x, query_positions = (
            queries.repeat(number, 1, 1)  # views would carry a gradient where none is taken
            for queries in (self.query_features, self.query_positions)
        )
        found = [self._predict(x, pixels)]
        for index, layer in enumerate(self.decoder):
            level = index % LEVELS
            seen = seen_cells(found[-1]["mask_logits"], sizes[level])
            x = layer(x, query_positions, cells[level], positions[level], seen)
            found.append(self._predict(x, pixels))
        return found

    def _maps(self, image: Tensor) -> list[Tensor]:
        """Of the image that is filled up to whole cells of the last map with the mean colour."""
        strides = self.backbone.strides
        whole = [(length + strides[-1] - 1) // strides[-1] for length in image.shape[2:]]
        bottom, right = (
            strides[-1] * cells - length
            for cells, length in zip(whole, image.shape[2:], strict=True)
        )
        sides = (0, right, 0, bottom)
        outside = F.pad(torch.zeros_like(image[:1, :1], dtype=torch.float32), sides, value=1.0)
        maps = self.backbone(F.pad(image.float(), sides) + outside * self.backbone.normalize.mean)
        if not torch.compiler.is_exporting():
            return maps
        # Sizes as multiples of `whole`: by the convolutions' own terms a graph takes minutes.
        sizes = [[strides[-1] // stride * cells for cells in whole] for stride in strides]
        return [
            F.pad(m, (0, columns - m.shape[3], 0, rows - m.shape[2]))
            for m, (rows, columns) in zip(maps, sizes, strict=True)
        ]

    def _predict(self, x: Tensor, pixels: Tensor) -> Queries:
        x = self.norm(x)
        return {
            "class_logits": self.classifier(x),
            "mask_logits": mask_logits(self.mask_mlp(x), pixels),
        }


def seen_cells(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, 1, Q, cells): true inside a query's mask, and everywhere where the mask is empty."""
    coarse = F.interpolate(masks.detach(), size, mode="bilinear", align_corners=False)
    inside = (coarse >= 0).flatten(2)[:, None]
    return inside | ~inside.any(3, keepdim=True)
