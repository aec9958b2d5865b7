"""SegFormer: Xie et al., SegFormer: Simple and Efficient Design for Semantic Segmentation with
Transformers, NeurIPS 2021 (arXiv 2105.15203)."""

from typing import Literal

from torch import Tensor, nn

from segtrain.architecture.backbone import TimmBackbone
from segtrain.architecture.blocks import concatenate, conv_norm_act, init_classifier, init_head
from segtrain.contracts import Outputs, resize
from segtrain.values import Count, ProperFraction, Text

# A Mix Transformer is timm's PVT v2 whose feed-forward layers are four times as wide in each stage.
PVT_V2 = {f"mit_b{size}": f"pvt_v2_b{size}" for size in range(6)}
MixTransformerName = Literal["mit_b0", "mit_b1", "mit_b2", "mit_b3", "mit_b4", "mit_b5"]


class MixTransformer(TimmBackbone):
    """Hierarchical transformer without position embeddings (section 3.1).

    Args:
        name: B0 to B5 (table 6).
        weights: `none`, or a file with a state dict in the names of timm's PVT v2.
        drop_path: rate of stochastic depth in the last block; it rises linearly from 0.
    """

    def __init__(self, name: MixTransformerName, weights: Text, drop_path: ProperFraction) -> None:
        settings = {"mlp_ratios": [4, 4, 4, 4], "drop_path_rate": drop_path}
        super().__init__(PVT_V2[name], weights, 32, False, None, settings)
        self.name = name


class SegFormerHead(nn.Module):
    """Each map projected to the same channels, resized to the first, joined by a 1x1 convolution
    (section 3.2)."""

    def __init__(
        self,
        in_channels: list[int],
        channels: int,
        projection_norm: bool,
        dropout: float,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.projections = nn.ModuleList(
            conv_norm_act(width, channels, kernel_size=1)
            if projection_norm
            else nn.Conv2d(width, channels, 1)
            for width in in_channels
        )
        self.fusion = conv_norm_act(len(in_channels) * channels, channels, kernel_size=1)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        init_head(self.fusion)
        init_classifier(self.classifier)

    def forward(self, maps: list[Tensor]) -> Tensor:  # (N, C_i, h_i, w_i) each -> (N, K, h_0, w_0)
        size = maps[0].shape[2:]
        projected = [
            resize(project(x), size, False)
            for project, x in zip(self.projections, maps, strict=True)
        ]
        return self.classifier(self.dropout(self.fusion(concatenate(projected))))


class SegFormer(nn.Module):
    """Mix Transformer and a head of 1x1 convolutions (figure 2).

    Args:
        backbone: gives four maps; a Mix Transformer in the paper.
        channels: of the head: 256 for B0 and B1, 768 for the others (table 6).
        projection_norm: whether batch norm and ReLU follow each map's projection, as in
            MMSegmentation; the authors' code has neither.
        dropout: rate before the classifier, of whole channels.
        num_classes: K.
    """

    def __init__(
        self,
        backbone: TimmBackbone,
        channels: Count,
        projection_norm: bool,
        dropout: ProperFraction,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = SegFormerHead(
            backbone.channels, channels, projection_norm, dropout, num_classes
        )

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) RGB in 0..255 -> logits (N, K, h, w) at output stride 4."""
        return {"logits": self.head(self.backbone(image)), "align_corners": False}
