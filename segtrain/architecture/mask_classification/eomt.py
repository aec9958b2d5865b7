"""EoMT: Kerssies et al., Your ViT is Secretly an Image Segmentation Model, CVPR 2025
(arXiv 2503.19108)."""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from segtrain.architecture.mask_classification.classifier import (
    STRIDE,
    MaskClassifier,
    mask_logits,
    mask_mlp,
)
from segtrain.architecture.vit import PlainViT
from segtrain.contracts import Queries
from segtrain.errors import UserError
from segtrain.values import ASCENDING, Count, Fraction

POWER = 0.9  # of the decay of mask probabilities, as of the rate


class Upscale(nn.Module):
    """Twice as many cells a side (section 3.2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.transposed = nn.ConvTranspose2d(width, width, 2, 2)
        self.activation = nn.GELU()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm = LayerNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, h, w) -> (N, C, 2h, 2w)
        return self.norm(self.depthwise(self.activation(self.transposed(x))))


class EoMT(MaskClassifier):
    """Queries among the patches of a plain vision transformer, in its last blocks.

    Args:
        backbone: with the norm behind its last block; patches have a side of 16 pixels.
        num_queries: Q; 100 for semantic segmentation in the paper, else 200.
        query_blocks: B, how many of the last blocks see the queries: 3 of ViT-S and ViT-B, 4 of
            ViT-L, 5 of ViT-g.
        annealing: shares of the training at which the first block's masks begin to go and the last
            one's are gone, see `anneal`; None: they stay.
        num_classes: K.

    Attributes:
        mask_probability: (B,) how likely a query looks at nothing but its mask in each of these
            blocks, in training, which lets it go to 0 block by block (mask annealing, section 3.3).
            In evaluation every query looks at everything.

    Raises:
        UserError: the backbone is no plain transformer, gives other than its last map, has too few
            blocks, or patches from which no masks of stride 4 come.
    """

    mask_probability: Tensor

    def __init__(
        self,
        backbone: PlainViT,
        num_queries: Count,
        query_blocks: Count,
        annealing: Annotated[tuple[Fraction, Fraction], ASCENDING] | None,
        num_classes: int,
    ) -> None:
        require_whole(backbone, query_blocks)
        super().__init__(backbone)
        width = backbone.channels[-1]
        self.query_features = nn.Parameter(torch.randn(num_queries, width))
        self.classifier = nn.Linear(width, num_classes + 1)
        self.mask_mlp = mask_mlp(width, nn.GELU)
        steps = int(math.log2(backbone.side // STRIDE))
        self.upscale = nn.Sequential(*(Upscale(width) for _ in range(steps)))
        self.register_buffer("mask_probability", torch.ones(query_blocks))
        self.annealing = annealing
        self.prefix = num_queries + backbone.body.num_prefix_tokens
        for block in backbone.body.blocks[-query_blocks:]:
            if hasattr(block.attn, "num_prefix_tokens"):  # that have no place to be turned by
                block.attn.num_prefix_tokens = self.prefix

    def anneal(self, progress: float) -> None:
        """Sets `mask_probability` by the share of the training that is over.

        Each block's falls from 1 to 0 in a quarter of the time of all, the first one's at its
        start, the last one's at its end (the authors' configurations).
        """
        if self.annealing is None:
            return
        start, end = self.annealing
        duration = max((end - start) / 4, 1e-6)
        starts = torch.linspace(start, end - duration, len(self.mask_probability))
        over = ((progress - starts) / duration).clamp(0, 1)
        self.mask_probability.copy_((1 - over) ** POWER)

    def layers(self, image: Tensor) -> list[Queries]:
        """In training also what the queries say before each of their blocks."""
        body, number = self.backbone.body, image.shape[0]
        x, turns, size = self._embedded(image)
        first = len(body.blocks) - len(self.mask_probability)
        found = []
        for index, (block, turn) in enumerate(zip(body.blocks, turns, strict=True)):
            if index == first:
                x = torch.cat([self.query_features.expand(number, -1, -1), x], 1)
            mask = None
            if index >= first and self.training:
                found.append(self._predict(x, size))
                mask = self._seen(found[-1]["mask_logits"], size, index - first)
            x = block(x, attn_mask=mask, **turn)
        return [*found, self._predict(x, size)]

    def _embedded(self, image: Tensor) -> tuple[Tensor, list[dict[str, Tensor]], torch.Size]:
        """Tokens before the first block, what else each block takes (the turns of places), and rows
        and columns of patches."""
        body = self.backbone.body
        patches = body.patch_embed(self.backbone.padded(image))
        x = body._pos_embed(patches)
        turns = [{}] * len(body.blocks)
        if isinstance(x, tuple):
            x, turn = x
            each = turn if getattr(body, "rope_mixed", False) else [turn] * len(turns)
            turns = [{"rope": own} for own in each]
        return body.norm_pre(x), turns, patches.shape[1:3]

    def _predict(self, x: Tensor, size: tuple[int, int]) -> Queries:
        x = self.backbone.body.norm(x)
        queries = x[:, : len(self.query_features)]
        patches = x[:, self.prefix :].transpose(1, 2)
        pixels = self.upscale(patches.reshape(*patches.shape[:2], *size))
        return {
            "class_logits": self.classifier(queries),
            "mask_logits": mask_logits(self.mask_mlp(queries), pixels),
        }

    def _seen(self, masks: Tensor, size: tuple[int, int], block: int) -> Tensor:
        """(N, 1, L, L): true where a token looks; queries at patches of their masks alone."""
        coarse = F.interpolate(masks.detach(), size, mode="bilinear", align_corners=False)
        number, queries = coarse.shape[:2]
        free = torch.rand(number, queries, 1, device=masks.device) >= self.mask_probability[block]
        seen = (coarse > 0).flatten(2) | free
        seen = F.pad(seen, (self.prefix, 0, 0, self.prefix - queries + seen.shape[2]), value=True)
        return seen[:, None]


def require_whole(backbone: PlainViT, query_blocks: int) -> None:
    """Refuses a backbone without the parts that queries need; see `EoMT`."""
    if type(backbone) is not PlainViT:
        raise UserError("EoMT takes a plain vision transformer; set "
                        "architecture/backbone=vit_eomt")  # fmt: skip
    depth = len(backbone.body.blocks)
    if backbone.layers != [depth - 1] or not backbone.norm:
        raise UserError("EoMT takes a whole transformer and its norm; set architecture.backbone."
                        "layers=1 architecture.backbone.norm=true")  # fmt: skip
    if query_blocks > depth:
        raise UserError(f"architecture.query_blocks={query_blocks}: '{backbone.name}' has "
                        f"{depth} blocks; set fewer")  # fmt: skip
    if backbone.side not in (8, 16, 32):
        raise UserError(f"'{backbone.name}' has patches of {backbone.side} pixels, from which no "
                        "masks of stride 4 come; set architecture.backbone.patch_size=16"
                        )  # fmt: skip
