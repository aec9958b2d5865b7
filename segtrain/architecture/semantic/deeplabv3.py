"""DeepLabv3: Chen, Papandreou, Schroff & Adam, Rethinking Atrous Convolution, arXiv 1706.05587."""

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from segtrain.architecture.backbone import TimmBackbone, set_dilation
from segtrain.architecture.blocks import (
    FCNHead,
    at_least_float32,
    concatenate,
    conv_norm_act,
    init_classifier,
    init_head,
    separable_conv_norm_act,
)
from segtrain.contracts import Outputs
from segtrain.errors import UserError
from segtrain.values import Count, Counts, ProperFraction, Size


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling with image-level features (section 3.3).

    A 1x1 convolution, one 3x3 convolution per atrous rate and globally pooled features, each to
    `channels` with batch norm and ReLU; concatenated and projected by a 1x1 convolution.
    `separable` makes the 3x3 convolutions depthwise-separable (DeepLabv3+, section 3.1).

    Args:
        in_channels: C.
        channels: of each branch and of the result.
        rates: of the 3x3 convolutions.
        separable: see above.
        pooling_window: cells vertically and horizontally; where the map is larger, image features
            are means of windows at every cell, resized to the map. None: of the whole map.
        pooling_norm: whether the convolution of the image features has batch norm; a bias if not.
        project_kernel: side of the last convolution; 3 in MMSegmentation.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        rates: list[int],
        separable: bool,
        pooling_window: Size | None = None,
        pooling_norm: bool = True,
        project_kernel: int = 1,
    ) -> None:
        super().__init__()
        self.pooling_window = pooling_window
        atrous = separable_conv_norm_act if separable else conv_norm_act
        self.branches = nn.ModuleList(
            [
                conv_norm_act(in_channels, channels, kernel_size=1),
                *(atrous(in_channels, channels, 3, dilation=rate) for rate in rates),
            ]
        )
        self.image_pooling = (
            conv_norm_act(in_channels, channels, kernel_size=1)
            if pooling_norm
            else nn.Sequential(nn.Conv2d(in_channels, channels, 1), nn.ReLU(inplace=True))
        )
        self.project = conv_norm_act((len(rates) + 2) * channels, channels, project_kernel)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, h, w) -> (N, channels, h, w)
        features = [branch(x) for branch in self.branches]
        features.append(self._image_features(x))
        return self.project(concatenate(features))

    def _image_features(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        if self.pooling_window is None:
            return self.image_pooling(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *size)
        sides = list(zip(size, self.pooling_window, strict=True))
        means = self.image_pooling(mixed(x, *(window_shares(*side, x.device) for side in sides)))
        return mixed(means, *(place_shares(*side, x.device) for side in sides))


def mixed(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Sums of cells (N, C, h, w), weighted by shares (h, h) along columns and (w, w) along rows."""
    with torch.autocast(x.device.type, enabled=False):
        cells = at_least_float32(x)
        return (rows.to(cells.dtype) @ cells @ columns.to(cells.dtype).T).to(x.dtype)


def window_shares(length: int, window: int, device: torch.device) -> Tensor:
    """(length, length) share of each cell of a side, second, in the mean of each window, first.

    Windows begin at every cell, but where they would not fit in; those begin at the last that does.
    So a side of any length has as many windows as cells, as exported graphs need it.
    """
    cell = torch.arange(length, device=device)
    width = cell.new_full((), length).clamp(max=window)
    start = torch.minimum(cell, length - width)[:, None]
    return ((cell >= start) & (cell < start + width)) / width


def place_shares(length: int, window: int, device: torch.device) -> Tensor:
    """(length, length) share of each window, second, in each cell of windows resized to the side.

    Bilinear without aligned corners, of those windows that have a place of their own.
    """
    cell = torch.arange(length, device=device)
    places = length - cell.new_full((), length).clamp(max=window) + 1
    source = ((cell + 0.5) * places / length - 0.5).clamp(min=0)
    source = torch.minimum(source, places - 1)[:, None]
    return (1 - (source - cell).abs()).clamp(min=0)


def window_at(output_stride: int, size: Size | None) -> Size | None:
    """Cells that a window of `size` pixels covers."""
    return None if size is None else tuple(-(-side // output_stride) for side in size)


def rates_at(output_stride: int, atrous_rates: list[int]) -> list[int]:
    """Rates given for output stride 16: they double at 8 (section 3.3) and halve at 32."""
    return [max(1, rate * 16 // output_stride) for rate in atrous_rates]


class DeepLabv3Head(nn.Module):
    """ASPP, dropout and classifier.

    `refine` adds what torchvision's and many other ports have and the paper has not: a 3x3
    convolution with batch norm and ReLU before the classifier. The classifier starts as in the
    authors' TensorFlow code (a normal distribution of deviation 0.01).
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        rates: list[int],
        dropout: float,
        refine: bool,
        num_classes: int,
        pooling_window: Size | None,
        pooling_norm: bool,
        project_kernel: int,
    ) -> None:
        super().__init__()
        self.aspp = ASPP(
            in_channels,
            channels,
            rates,
            separable=False,
            pooling_window=pooling_window,
            pooling_norm=pooling_norm,
            project_kernel=project_kernel,
        )
        self.dropout = nn.Dropout(dropout)
        self.refine = conv_norm_act(channels, channels, kernel_size=3) if refine else nn.Identity()
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        init_head(self)
        init_classifier(self.classifier)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, h, w) -> (N, K, h, w)
        return self.classifier(self.refine(self.dropout(self.aspp(x))))


class DeepLabv3(nn.Module):
    """Backbone with atrous convolution, ASPP head, and an auxiliary head if asked for.

    Args:
        backbone: gives four feature maps; output stride 8 or 16 and multi-grid are its settings.
        aspp_channels: of each ASPP branch (256 in the paper).
        atrous_rates: of the 3x3 branches at output stride 16 (see `rates_at`).
        dropout: after the ASPP; 0.1 in the authors' code, 0.5 in torchvision's.
        refine: see `DeepLabv3Head`; false in the paper.
        auxiliary: FCN head on the third stage, in training only; not in the paper.
        align_corners: how the logits are to be resized; true in the authors' code.
        num_classes: K.
        pooling_window: height and width, in pixels, of the window of the ASPP's image features,
            such as the crop of the training; None for the whole image, as in the paper.
        pooling_norm: see `ASPP`.
        project_kernel: side of the ASPP's last convolution; 1 in the paper.
    """

    def __init__(
        self,
        backbone: TimmBackbone,
        aspp_channels: Count,
        atrous_rates: Counts,
        refine: bool,
        auxiliary: bool,
        align_corners: bool,
        num_classes: int,
        dropout: ProperFraction = 0.0,  # older runs do not say it, nor what follows
        pooling_window: Size | None = None,
        pooling_norm: bool = True,
        project_kernel: Literal[1, 3] = 1,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.align_corners = align_corners
        rates = rates_at(backbone.output_stride, atrous_rates)
        self.head = DeepLabv3Head(
            backbone.channels[-1],
            aspp_channels,
            rates,
            dropout,
            refine,
            num_classes,
            pooling_window=window_at(backbone.output_stride, pooling_window),
            pooling_norm=pooling_norm,
            project_kernel=project_kernel,
        )
        self.auxiliary = (
            FCNHead(backbone.channels[-2], num_classes, dropout=0.1) if auxiliary else None
        )

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) RGB in 0..255 -> logits (N, K, h, w) at the backbone's output stride."""
        maps = self.backbone(image)
        outputs: Outputs = {"logits": self.head(maps[-1]), "align_corners": self.align_corners}
        if self.auxiliary is not None and self.training:
            outputs["aux"] = self.auxiliary(maps[-2])
        return outputs


class DeepLabv3Cascade(nn.Module):
    """The paper's other design (section 3.2): copies of the last ResNet block, ever more dilated.

    The classifier starts as that of `DeepLabv3Head`.

    Args:
        backbone: a ResNet; its last stage is "block4".
        extra_blocks: how many copies follow it; 3 for the paper's "block7".
        multi_grid: unit rates of the units of every copy, the backbone's own for its last stage.
        align_corners: how the logits are to be resized.
        num_classes: K.
    """

    def __init__(
        self,
        backbone: TimmBackbone,
        extra_blocks: Count,
        multi_grid: Counts,
        align_corners: bool,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.align_corners = align_corners
        rate = 32 // backbone.output_stride
        self.blocks = nn.Sequential(
            *(
                copied_block(backbone, [rate * 2**number * unit for unit in multi_grid])
                for number in range(1, extra_blocks + 1)
            )
        )
        self.classifier = nn.Conv2d(backbone.channels[-1], num_classes, 1)
        init_classifier(self.classifier)

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) RGB in 0..255 -> logits (N, K, h, w) at the backbone's output stride."""
        logits = self.classifier(self.blocks(self.backbone(image)[-1]))
        return {"logits": logits, "align_corners": self.align_corners}


def copied_block(backbone: TimmBackbone, rates: list[int]) -> nn.Sequential:
    """A copy of the last ResNet stage, weights included, that can follow it.

    Its first unit is a copy of the second, since the first takes half the channels.

    Raises:
        UserError: the backbone is no ResNet whose last stage has one unit a rate and at least two.
    """
    units = list(getattr(backbone.body, "layer4", ()))
    if len(units) != len(rates) or len(units) < 2:
        raise UserError(
            f"the cascade needs a ResNet whose last stage has {max(2, len(rates))} units, one for "
            f"each of architecture.multi_grid; {backbone.name} has {len(units)}"
        )
    copies = [copy.deepcopy(unit) for unit in (units[1], *units[1:])]
    for unit, rate in zip(copies, rates, strict=True):
        set_dilation(unit, rate)
    return nn.Sequential(*copies)
