"""U-Net: Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation,
MICCAI 2015 (arXiv 1505.04597), with any backbone as its contracting path.

The form in which it is used today: maps are enlarged by repeating values, convolutions are padded
and normalised, and the expanding path ends at the image's own size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.architecture.backbone import TimmBackbone
from segtrain.architecture.blocks import concatenate, conv_norm_act, init_classifier, init_head
from segtrain.contracts import Outputs
from segtrain.errors import UserError
from segtrain.values import Counts


class Expansion(nn.Module):
    """Enlarges a map, joins the backbone's map of that size, and convolves twice (figure 1)."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            conv_norm_act(in_channels + skip_channels, out_channels, kernel_size=3),
            conv_norm_act(out_channels, out_channels, kernel_size=3),
        )

    def forward(self, x: Tensor, skip: Tensor | None, size: torch.Size) -> Tensor:
        """(N, C, h, w) and (N, C', size) or nothing -> (N, out, size)."""
        enlarged = F.interpolate(x, size=size, mode="nearest")
        return self.convs(enlarged if skip is None else concatenate([enlarged, skip]))


def require_levels(backbone: TimmBackbone, channels: list[int], title: str) -> None:
    """Refuses backbones that do not halve the image five times, and other numbers of channels.

    Raises:
        UserError: for these two.
    """
    if len(channels) != 5:
        raise UserError(f"architecture.channels={channels}: expected five, one a level")
    if backbone.strides not in ([2, 4, 8, 16, 32], [4, 8, 16, 32]):
        raise UserError(
            f"backbone '{backbone.name}' gives maps at strides {backbone.strides}; {title} needs "
            "4, 8, 16 and 32: set architecture.backbone.output_stride=32, or choose another"
        )


class UNet(nn.Module):
    """Backbone, and an expanding path that doubles the size five times.

    Args:
        backbone: gives its maps of strides 4 to 32, and of stride 2 where it has one
            (`architecture.backbone.every_map`).
        channels: of the five levels of the expanding path, the coarsest first.
        num_classes: K.

    Raises:
        UserError: there are not five channels, or the backbone does not halve the image five times.
    """

    def __init__(self, backbone: TimmBackbone, channels: Counts, num_classes: int) -> None:
        super().__init__()
        require_levels(backbone, channels, "U-Net")
        self.backbone = backbone
        self.align_corners = False
        *skips, inner = backbone.channels
        skips = [*reversed(skips), *[0] * (5 - len(skips))]
        widths = [inner, *channels]
        self.expansions = nn.ModuleList(
            Expansion(*sizes) for sizes in zip(widths, skips, channels, strict=False)
        )
        self.classifier = nn.Conv2d(channels[-1], num_classes, 3, padding=1)
        init_head(self.expansions)
        init_classifier(self.classifier)

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) RGB in 0..255 -> logits (N, K, H, W)."""
        height, width = image.shape[2:]
        *skips, x = self.backbone(image)
        levels: list[Tensor | None] = [*reversed(skips), *[None] * (5 - len(skips))]
        sizes = [skip.shape[2:] for skip in reversed(skips)]
        if len(skips) == 3:
            sizes.append(torch.Size([(height + 1) // 2, (width + 1) // 2]))
        sizes.append(torch.Size([height, width]))
        for expand, skip, size in zip(self.expansions, levels, sizes, strict=True):
            x = expand(x, skip, size)
        return {"logits": self.classifier(x), "align_corners": self.align_corners}
