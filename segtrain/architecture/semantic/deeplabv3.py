"""DeepLabv3: Chen et al., Rethinking Atrous Convolution, arXiv 1706.05587, section 3.3."""

import torch
from torch import Tensor, nn

from segtrain.architecture.backbone import TimmBackbone
from segtrain.architecture.blocks import conv_norm_act, init_head
from segtrain.architecture.semantic.fcn import FCNHead
from segtrain.contracts import Outputs


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling with image-level features.

    A 1x1 convolution, one 3x3 convolution per atrous rate and globally pooled features, each to
    `channels` with batch norm and ReLU; concatenated and projected by a 1x1 convolution.
    """

    def __init__(self, in_channels: int, channels: int, rates: list[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                conv_norm_act(in_channels, channels, kernel_size=1),
                *(conv_norm_act(in_channels, channels, 3, dilation=rate) for rate in rates),
            ]
        )
        self.image_pooling = conv_norm_act(in_channels, channels, kernel_size=1)
        self.project = conv_norm_act((len(rates) + 2) * channels, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, h, w) -> (N, channels, h, w)
        pooled = self.image_pooling(x.mean(dim=(2, 3), keepdim=True))  # (N, channels, 1, 1)
        features = [branch(x) for branch in self.branches]
        features.append(pooled.expand(-1, -1, *x.shape[2:]))
        return self.project(torch.cat(features, dim=1))


class DeepLabv3Head(nn.Module):
    """ASPP and classifier.

    `refine` adds what torchvision's and many other ports have and the paper has not: dropout 0.5
    after the ASPP and a 3x3 convolution with batch norm and ReLU before the classifier.
    """

    def __init__(
        self, in_channels: int, channels: int, rates: list[int], refine: bool, num_classes: int
    ) -> None:
        super().__init__()
        self.aspp = ASPP(in_channels, channels, rates)
        self.dropout = nn.Dropout(0.5 if refine else 0.0)
        self.refine = conv_norm_act(channels, channels, kernel_size=3) if refine else nn.Identity()
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        init_head(self)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, h, w) -> (N, K, h, w)
        return self.classifier(self.refine(self.dropout(self.aspp(x))))


class DeepLabv3(nn.Module):
    """Backbone with atrous convolution, ASPP head, and an auxiliary head if asked for.

    Args:
        backbone: gives four feature maps; output stride 8 or 16 and multi-grid are its settings.
        aspp_channels: of each ASPP branch (256 in the paper).
        atrous_rates: of the 3x3 branches at output stride 16; they double at 8 and halve at 32
            (section 3.3: "the rates are doubled when output_stride = 8").
        refine: see `DeepLabv3Head`; false in the paper.
        auxiliary: FCN head on the third stage, in training only; not in the paper.
        num_classes: K.
    """

    def __init__(
        self,
        backbone: TimmBackbone,
        aspp_channels: int,
        atrous_rates: list[int],
        refine: bool,
        auxiliary: bool,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        rates = [max(1, rate * 16 // backbone.output_stride) for rate in atrous_rates]
        self.head = DeepLabv3Head(backbone.channels[-1], aspp_channels, rates, refine, num_classes)
        self.auxiliary = (
            FCNHead(backbone.channels[-2], num_classes, dropout=0.1) if auxiliary else None
        )

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) RGB in 0..255 -> logits (N, K, h, w) at the backbone's output stride."""
        maps = self.backbone(image)
        outputs: Outputs = {"logits": self.head(maps[-1])}
        if self.auxiliary is not None and self.training:
            outputs["aux"] = self.auxiliary(maps[-2])
        return outputs
