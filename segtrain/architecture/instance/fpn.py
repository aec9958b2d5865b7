"""Feature Pyramid Network (Lin et al., CVPR 2017, arXiv 1612.03144), section 3."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.errors import UserError

GROUPS = 32  # of group norm (Wu and He 2018, arXiv 1803.08494)
SIZE_MULTIPLE = 32  # of batches; every pyramid level up to P5 has whole cells then


class FeaturePyramid(nn.Module):
    """1x1 convolutions, a top-down path of nearest upsampling, 3x3 convolutions; no ReLU.

    Args:
        in_channels: of the maps C2..C5.
        channels: d, of every level.
        norm: `none`, `batch` or `group`, behind every convolution.
    """

    def __init__(self, in_channels: list[int], channels: int, norm: str) -> None:
        super().__init__()
        self.channels = channels
        self.laterals = nn.ModuleList(conv(c, channels, 1, norm) for c in in_channels)
        self.outputs = nn.ModuleList(conv(channels, channels, 3, norm) for _ in in_channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """C2..C5 (N, in_channels, h, w) -> P2..P5 (N, channels, h, w)."""
        merged = [lateral(m) for lateral, m in zip(self.laterals, maps, strict=True)]
        for level in range(len(merged) - 2, -1, -1):
            above = F.interpolate(merged[level + 1], merged[level].shape[2:], mode="nearest")
            merged[level] = merged[level] + above
        return [output(m) for output, m in zip(self.outputs, merged, strict=True)]


def conv(
    in_channels: int, out_channels: int, kernel_size: int, norm: str, stride: int = 1
) -> nn.Module:
    """A padded convolution with bias, or without and with a norm behind it.

    Raises:
        UserError: there is no such norm.
    """
    layer = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=norm == "none"
    )
    if norm == "none":
        nn.init.zeros_(layer.bias)
        return layer
    if norm == "batch":
        return nn.Sequential(layer, nn.BatchNorm2d(out_channels))
    if norm == "group":
        return nn.Sequential(layer, nn.GroupNorm(math.gcd(GROUPS, out_channels), out_channels))
    raise UserError(f"norm={norm}: expected none, batch or group")


def require_pyramid(strides: list[int]) -> None:
    """Refuses a backbone whose maps are not those that regions and scales are shared out over.

    Raises:
        UserError: the strides are not 4, 8, 16 and 32.
    """
    if list(strides) != [4, 8, 16, 32]:
        raise UserError(
            f"the backbone's maps have strides {list(strides)}, a feature pyramid needs "
            "[4, 8, 16, 32]; set architecture.backbone.output_stride=32"
        )


def with_coarsest(maps: list[Tensor]) -> list[Tensor]:
    """P2..P5 and P6, every second cell of P5."""
    return [*maps, maps[-1][:, :, ::2, ::2]]


def batch_of(images: list[Tensor], mean: Tensor) -> Tensor:
    """Images (3, H, W) of any sizes -> one batch (N, 3, H', W') of float, channels_last.

    Padded right and bottom with `mean` (1, 3, 1, 1), which normalises to exactly zero.
    """
    sides = (max(image.shape[axis] for image in images) for axis in (1, 2))
    height, width = (-(-side // SIZE_MULTIPLE) * SIZE_MULTIPLE for side in sides)
    batch = torch.empty(
        (len(images), 3, height, width),
        dtype=mean.dtype,
        device=mean.device,
        memory_format=torch.channels_last,
    )
    batch.copy_(mean.expand_as(batch))
    for padded, image in zip(batch, images, strict=True):
        padded[:, : image.shape[1], : image.shape[2]] = image
    return batch
