"""DeepLabv2: Chen, Papandreou, Kokkinos, Murphy & Yuille, TPAMI 2018 (arXiv 1606.00915)."""

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.architecture.backbone import TimmBackbone
from segtrain.architecture.blocks import init_classifier
from segtrain.architecture.vgg import ReducedVGG16
from segtrain.contracts import Outputs, resize
from segtrain.errors import UserError
from segtrain.values import Counts, Positives


class SummedASPP(nn.Module):
    """Scores of parallel classifiers of several atrous rates, summed (section 3.2, figure 7).

    They start from N(0, 0.01), as DeepLab's Caffe nets (`gaussian`, std 0.01, in every fc8).

    Args:
        channels: of the maps.
        atrous_rates: of 3x3 classifiers on the last map; None for 1x1 classifiers, one on each
            map, of a VGG-16 whose fc6 layers have the rates.
        num_classes: K.
    """

    def __init__(
        self, channels: list[int], atrous_rates: list[int] | None, num_classes: int
    ) -> None:
        super().__init__()
        self.on_every_map = atrous_rates is None
        if atrous_rates is None:
            layers = [nn.Conv2d(width, num_classes, 1) for width in channels]
        else:
            layers = [
                nn.Conv2d(channels[-1], num_classes, 3, padding=rate, dilation=rate)
                for rate in atrous_rates
            ]
        self.classifiers = nn.ModuleList(layers)
        for layer in layers:
            init_classifier(layer)

    def forward(self, maps: list[Tensor]) -> Tensor:  # (N, C, h, w) each -> (N, K, h, w)
        maps = maps if self.on_every_map else maps[-1:] * len(self.classifiers)
        return sum(layer(x) for layer, x in zip(self.classifiers, maps, strict=True))


class DeepLabv2(nn.Module):
    """Backbone with atrous convolution and ASPP, applied to several scales of the image.

    The scores of all scales are resized to the grid of the first, and their maximum is taken
    (section 4.3, "MSC"). In training every scale's own scores are put out too, for its own loss.

    Args:
        backbone: at output stride 8. Its max-pooling rounds sizes up, as Caffe's does.
        atrous_rates: see `SummedASPP`.
        scales: of the image, 1.0 first; `[1.0]` for one pass.
        align_corners: how images and scores are resized; true in the authors' code.
        num_classes: K.
        caffe_sizes: whether a scaled image is of the size that Caffe's Interp gives it, which keeps
            the form 8k + 1: 321 becomes 241 and 161. If not, sides are multiplied and rounded down,
            as by most ports.

    Raises:
        UserError: no rates are given for a backbone that has none of its own.
    """

    def __init__(
        self,
        backbone: TimmBackbone | ReducedVGG16,
        atrous_rates: Counts | None,
        scales: Positives,
        align_corners: bool,
        num_classes: int,
        caffe_sizes: bool = True,  # older runs do not say it
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.scales = scales
        self.caffe_sizes = caffe_sizes
        self.align_corners = align_corners
        for module in backbone.modules():
            if isinstance(module, nn.MaxPool2d):
                module.ceil_mode = True
        if atrous_rates is None and len(set(backbone.strides)) > 1:
            raise UserError(
                "architecture.atrous_rates=null is for VGG-16 with its own rates; give "
                f"{backbone.name} rates, such as [6, 12, 18, 24], or use architecture=deeplabv2"
            )
        self.head = SummedASPP(backbone.channels, atrous_rates, num_classes)

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) RGB in 0..255 -> logits (N, K, h, w) at output stride 8.

        In training `scales` holds the logits of every scale on its own grid.
        """
        by_scale = [self.head(self.backbone(self._scaled(image, scale))) for scale in self.scales]
        logits = by_scale[0]
        for scores in by_scale[1:]:
            logits = torch.maximum(logits, resize(scores, logits.shape[2:], self.align_corners))
        outputs: Outputs = {"logits": logits, "align_corners": self.align_corners}
        if self.training and len(self.scales) > 1:
            outputs["scales"] = by_scale
        return outputs

    def _scaled(self, image: Tensor, scale: float) -> Tensor:
        if scale == 1:
            return image
        how = {"mode": "bilinear", "align_corners": self.align_corners}
        if not self.caffe_sizes:
            return F.interpolate(image.float(), scale_factor=scale, **how)
        # In whole numbers, since an exported graph has no other formulas of the image's size.
        over, under = Fraction(scale).limit_denominator(100).as_integer_ratio()
        size = [(2 * (length - 1) * over + under) // (2 * under) + 1 for length in image.shape[2:]]
        return F.interpolate(image.float(), size, **how)
