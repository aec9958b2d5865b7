"""UPerNet: Xiao et al., Unified Perceptual Parsing for Scene Understanding, ECCV 2018
(arXiv 1807.10221)."""

from torch import Tensor, nn

from segtrain.architecture.backbone import TimmBackbone
from segtrain.architecture.blocks import (
    FCNHead,
    concatenate,
    conv_norm_act,
    init_classifier,
    init_head,
)
from segtrain.architecture.semantic.pspnet import PyramidPooling
from segtrain.contracts import Outputs, resize
from segtrain.values import Count, Counts


class UPerHead(nn.Module):
    """Pyramid pooling on the last map, a feature pyramid below it, all levels joined (figure 4)."""

    def __init__(
        self,
        in_channels: list[int],
        channels: int,
        bins: list[int],
        align_corners: bool,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        *lower, last = in_channels
        self.pyramid = PyramidPooling(last, bins, align_corners, channels)
        self.bottleneck = conv_norm_act(self.pyramid.out_channels, channels, kernel_size=3)
        self.laterals = nn.ModuleList(conv_norm_act(c, channels, kernel_size=1) for c in lower)
        self.smooth = nn.ModuleList(conv_norm_act(channels, channels, kernel_size=3) for _ in lower)
        self.fusion = conv_norm_act(len(in_channels) * channels, channels, kernel_size=3)
        self.dropout = nn.Dropout2d(0.1)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        init_head(self)
        init_classifier(self.classifier)

    def forward(self, maps: list[Tensor]) -> Tensor:  # (N, C_i, h_i, w_i) each -> (N, K, h_0, w_0)
        merged = self.bottleneck(self.pyramid(maps[-1]))
        levels = [merged]
        for x, lateral, smooth in zip(
            maps[-2::-1], reversed(self.laterals), reversed(self.smooth), strict=True
        ):
            merged = lateral(x) + resize(merged, x.shape[2:], self.align_corners)
            levels.insert(0, smooth(merged))
        size = maps[0].shape[2:]
        joined = concatenate([resize(level, size, self.align_corners) for level in levels])
        return self.classifier(self.dropout(self.fusion(joined)))


class UPerNet(nn.Module):
    """Backbone at output stride 32, UPerNet's head, and an auxiliary head on the third stage.

    Args:
        backbone: gives four maps; Swin and ConvNeXt with a norm behind each
            (`architecture.backbone.norm_maps`), as their authors have them.
        channels: of the head; 512 in MMSegmentation and in the papers of Swin and ConvNeXt.
        bins: regions a side of each level of the pyramid pooling.
        auxiliary: adds the auxiliary head, which runs in training only.
        auxiliary_channels: of that head's convolution.
        num_classes: K.
        align_corners: how maps and logits are resized.
    """

    def __init__(
        self,
        backbone: TimmBackbone,
        channels: Count,
        bins: Counts,
        auxiliary: bool,
        auxiliary_channels: Count,
        num_classes: int,
        align_corners: bool = False,  # older runs do not say
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.align_corners = align_corners
        self.head = UPerHead(backbone.channels, channels, bins, align_corners, num_classes)
        self.auxiliary = (
            FCNHead(backbone.channels[-2], num_classes, 0.1, channels=auxiliary_channels)
            if auxiliary
            else None
        )

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) RGB in 0..255 -> logits (N, K, h, w) at the first map's stride, mostly 4."""
        maps = self.backbone(image)
        outputs: Outputs = {"logits": self.head(maps), "align_corners": self.align_corners}
        if self.auxiliary is not None and self.training:
            outputs["aux"] = self.auxiliary(maps[-2])
        return outputs
