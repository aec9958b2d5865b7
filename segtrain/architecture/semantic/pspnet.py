"""PSPNet: Zhao et al., Pyramid Scene Parsing Network, CVPR 2017 (arXiv 1612.01105)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.architecture.backbone import TimmBackbone
from segtrain.architecture.blocks import (
    FCNHead,
    at_least_float32,
    concatenate,
    conv_norm_act,
    init_classifier,
    init_head,
)
from segtrain.contracts import Outputs
from segtrain.values import Counts


class PyramidPooling(nn.Module):
    """The input, and its averages over 1x1, 2x2, 3x3 and 6x6 regions, each reduced to `channels`,
    resized and concatenated (section 3.2)."""

    def __init__(
        self, in_channels: int, bins: list[int], align_corners: bool, channels: int
    ) -> None:
        super().__init__()
        self.bins = bins
        self.align_corners = align_corners
        self.reductions = nn.ModuleList(
            conv_norm_act(in_channels, channels, kernel_size=1) for _ in bins
        )
        self.out_channels = in_channels + len(bins) * channels

    def forward(self, x: Tensor) -> Tensor:  # (N, C, h, w) -> (N, C + bins * channels, h, w)
        levels = [x]
        for pooled, reduce in zip(region_averages(x, self.bins), self.reductions, strict=True):
            # Not `resize`, which would bind an exported graph to maps of other sides than levels.
            levels.append(
                F.interpolate(reduce(pooled), x.shape[2:], mode="bilinear",
                              align_corners=self.align_corners)
            )  # fmt: skip
        return concatenate(levels)


def region_averages(x: Tensor, bins: list[int]) -> list[Tensor]:
    """What F.adaptive_avg_pool2d gives for each number of bins, by one matrix product for all.

    It takes maps of any size in an exported graph too, and its gradient is faster, and the same in
    every run on a GPU.

    Args:
        x: (N, C, h, w).
        bins: regions a side of each level.

    Returns:
        (N, C, b, b) of each level, at least float32.
    """
    shares = []
    for count in bins:
        rows, columns = (bin_shares(length, count, x.device) for length in x.shape[2:])
        regions = rows[:, None, :, None] * columns[:, None, :]  # (h, w, b, b)
        shares.append(regions.flatten(0, 1).flatten(1))
    with torch.autocast(x.device.type, enabled=False):
        cells = at_least_float32(x).flatten(2)  # (N, C, h * w)
        averages = cells @ torch.cat(shares, 1).to(cells.dtype)
    levels = averages.split([count**2 for count in bins], 2)
    return [level.unflatten(2, (count, count)) for level, count in zip(levels, bins, strict=True)]


def bin_shares(length: int, count: int, device: torch.device) -> Tensor:
    """(length, count) share of each cell of a side in each bin's average; bins may overlap."""
    cell = torch.arange(length, device=device)[:, None]
    number = torch.arange(count, device=device)
    start, end = number * length // count, -(-(number + 1) * length // count)
    return ((cell >= start) & (cell < end)) / (end - start)


class PSPHead(nn.Module):
    """Pyramid pooling, 3x3 convolution to a quarter of the input's channels, classifier.

    The classifier starts from N(0, 0.01), as MMSegmentation's; in the authors' Caffe nets it has He
    initialisation by fan-in ("msra"), in their PyTorch code that framework's own.
    """

    def __init__(
        self, in_channels: int, bins: list[int], align_corners: bool, num_classes: int
    ) -> None:
        super().__init__()
        share = in_channels // len(bins)
        self.pyramid = PyramidPooling(in_channels, bins, align_corners, share)
        self.conv = conv_norm_act(self.pyramid.out_channels, in_channels // 4, kernel_size=3)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(in_channels // 4, num_classes, 1)
        init_head(self)
        init_classifier(self.classifier)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, h, w) -> (N, K, h, w)
        return self.classifier(self.dropout(self.conv(self.pyramid(x))))


class PSPNet(nn.Module):
    """Dilated backbone, pyramid pooling and an auxiliary head on the third stage (figure 4).

    Args:
        backbone: gives four feature maps; deep-stem ResNet at output stride 8 in the paper.
        bins: regions a side of each pyramid level.
        auxiliary: adds the auxiliary head, which runs in training only.
        align_corners: how maps and logits are resized; true in the authors' code.
        num_classes: K.
    """

    def __init__(
        self,
        backbone: TimmBackbone,
        bins: Counts,
        auxiliary: bool,
        align_corners: bool,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.align_corners = align_corners
        self.head = PSPHead(backbone.channels[-1], bins, align_corners, num_classes)
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
