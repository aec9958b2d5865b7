"""Semantic FPN: Kirillov, Girshick, He & Dollár, Panoptic Feature Pyramid Networks, CVPR 2019
(arXiv 1901.02446), its branch for semantic segmentation."""

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.architecture.backbone import TimmBackbone
from segtrain.architecture.blocks import conv_norm_act, init_classifier, init_head
from segtrain.architecture.instance.fpn import GROUPS, FeaturePyramid
from segtrain.contracts import Outputs
from segtrain.values import Count, ProperFraction

Norm = Literal["group", "batch"]


def scale_head(in_channels: int, channels: int, doublings: int, norm: Norm) -> nn.Sequential:
    """3x3 convolutions with norm and ReLU, each but a level's that keeps its size followed by
    bilinear upsampling by 2: (N, C, h, w) -> (N, channels, h * 2^doublings, w * 2^doublings)."""
    layers: list[nn.Module] = []
    for index in range(max(1, doublings)):
        conv = conv_norm_act(in_channels if index == 0 else channels, channels, 3)
        if norm == "group":
            # Of two channels at least: one value of a 1x1 map has no variance.
            conv[1] = nn.GroupNorm(math.gcd(GROUPS, channels // 2), channels)
        layers.append(conv)
        if doublings:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers)


class SemanticFPN(nn.Module):
    """Backbone, feature pyramid, and all its levels summed at the finest's stride (figure 3).

    Args:
        backbone: gives four maps, the first at stride 4; ResNets in the paper.
        pyramid_channels: of the feature pyramid (256).
        channels: of each level's convolutions (128).
        norm: behind them: `group` in the paper, `batch` in MMSegmentation.
        dropout: rate before the classifier, of whole channels; 0 in the paper, 0.1 in
            MMSegmentation.
        num_classes: K.
    """

    def __init__(
        self,
        backbone: TimmBackbone,
        pyramid_channels: Count,
        channels: Count,
        norm: Norm,
        dropout: ProperFraction,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.align_corners = False
        self.pyramid = FeaturePyramid(backbone.channels, pyramid_channels, "none")
        self.scale_heads = nn.ModuleList(
            scale_head(pyramid_channels, channels, round(math.log2(s / backbone.strides[0])), norm)
            for s in backbone.strides
        )
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        init_head(self.scale_heads)
        init_classifier(self.classifier)

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) RGB in 0..255 -> logits (N, K, h, w) at the first map's stride, mostly 4."""
        levels = self.pyramid(self.backbone(image))
        finest, *others = (head(x) for head, x in zip(self.scale_heads, levels, strict=True))
        # A side doubled from an odd one may have a cell too many. Sizes are not compared: a graph
        # traced where they are the same would never resize.
        for x in others:
            finest = finest + F.interpolate(
                x, finest.shape[2:], mode="bilinear", align_corners=False
            )
        logits = self.classifier(self.dropout(finest))
        return {"logits": logits, "align_corners": self.align_corners}
