"""DeepLabv3+: Chen, Zhu, Papandreou, Schroff & Adam, Encoder-Decoder with Atrous Separable
Convolution, ECCV 2018 (arXiv 1802.02611)."""

from typing import Literal

from torch import Tensor, nn

from segtrain.architecture.backbone import TimmBackbone
from segtrain.architecture.blocks import (
    FCNHead,
    concatenate,
    conv_norm_act,
    init_classifier,
    init_head,
    separable_conv_norm_act,
)
from segtrain.architecture.semantic.deeplabv3 import ASPP, rates_at, window_at
from segtrain.architecture.xception import Xception
from segtrain.contracts import Outputs, resize
from segtrain.values import Count, Counts, ProperFraction, Size


class Decoder(nn.Module):
    """Encoder features upsampled onto low-level features, 3x3 convolutions (section 3.1).

    Args:
        low_level_channels: of the backbone's map at stride 4.
        reduced_channels: to which a 1x1 convolution brings it (48, table 1).
        channels: of the encoder and of all convolutions (256, table 2).
        separable: whether those are depthwise-separable.
        align_corners: how the encoder's features are resized.
        convolutions: how many 3x3 convolutions there are (2, table 2).
    """

    def __init__(
        self,
        low_level_channels: int,
        reduced_channels: int,
        channels: int,
        separable: bool,
        align_corners: bool,
        convolutions: int,
    ) -> None:
        super().__init__()
        conv = separable_conv_norm_act if separable else conv_norm_act
        self.align_corners = align_corners
        self.reduce = conv_norm_act(low_level_channels, reduced_channels, kernel_size=1)
        widths = [channels + reduced_channels] + [channels] * (convolutions - 1)
        self.convs = nn.Sequential(*(conv(width, channels, 3) for width in widths))

    def forward(self, encoded: Tensor, low_level: Tensor) -> Tensor:
        """(N, C, h, w) and (N, L, H/4, W/4) -> (N, C, H/4, W/4)."""
        upsampled = resize(encoded, low_level.shape[2:], self.align_corners)
        return self.convs(concatenate([upsampled, self.reduce(low_level)]))


class DeepLabv3Plus(nn.Module):
    """DeepLabv3 as the encoder, and a decoder that brings back object boundaries.

    The classifier starts as DeepLabv3's, and as in the authors' code.

    Args:
        backbone: four maps, the first at stride 4; ResNet-101 or Xception-65 in the paper.
        channels: of the ASPP and the decoder (256).
        low_level_channels: of the reduced low-level map (48).
        atrous_rates: of the ASPP at output stride 16 (see `rates_at`).
        separable: depthwise-separable 3x3 convolutions in ASPP and decoder.
        dropout: after the ASPP; 0.1 in the authors' code.
        align_corners: how maps and logits are resized; true in the authors' code.
        num_classes: K.
        decoder_convolutions: how many 3x3 convolutions the decoder has; 2 in the paper.
        pooling_window: height and width, in pixels, of the window of the ASPP's image features,
            such as the crop of the training; None for the whole image, as in the paper.
        pooling_norm: see `ASPP`.
        project_kernel: side of the ASPP's last convolution; 1 in the paper.
        auxiliary: FCN head on the third stage, in training only; not in the paper.
    """

    def __init__(
        self,
        backbone: TimmBackbone | Xception,
        channels: Count,
        low_level_channels: Count,
        atrous_rates: Counts,
        separable: bool,
        align_corners: bool,
        num_classes: int,
        dropout: ProperFraction = 0.0,  # older runs have none, nor what follows
        decoder_convolutions: Count = 2,
        pooling_window: Size | None = None,
        pooling_norm: bool = True,
        project_kernel: Literal[1, 3] = 1,
        auxiliary: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.align_corners = align_corners
        rates = rates_at(backbone.output_stride, atrous_rates)
        self.aspp = ASPP(
            backbone.channels[-1],
            channels,
            rates,
            separable,
            pooling_window=window_at(backbone.output_stride, pooling_window),
            pooling_norm=pooling_norm,
            project_kernel=project_kernel,
        )
        self.dropout = nn.Dropout(dropout)
        self.decoder = Decoder(
            backbone.channels[0],
            low_level_channels,
            channels,
            separable,
            align_corners,
            decoder_convolutions,
        )
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        init_head(self.aspp)
        init_head(self.decoder)
        init_classifier(self.classifier)
        self.auxiliary = (
            FCNHead(backbone.channels[-2], num_classes, dropout=0.1) if auxiliary else None
        )

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) RGB in 0..255 -> logits (N, K, h, w) at the low-level map's stride, 4."""
        maps = self.backbone(image)
        logits = self.classifier(self.decoder(self.dropout(self.aspp(maps[-1])), maps[0]))
        outputs: Outputs = {"logits": logits, "align_corners": self.align_corners}
        if self.auxiliary is not None and self.training:
            outputs["aux"] = self.auxiliary(maps[-2])
        return outputs
