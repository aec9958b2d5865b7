"""U-Net++: Zhou, Siddiquee, Tajbakhsh & Liang, UNet++: A Nested U-Net Architecture for Medical
Image Segmentation, DLMIA 2018 (arXiv 1807.10165), with any backbone as its contracting path.

In the form of `unet`, without deep supervision: the last node of the finest level gives the scores.
"""

import torch
from torch import Tensor, nn

from segtrain.architecture.backbone import TimmBackbone
from segtrain.architecture.blocks import concatenate, init_classifier, init_head
from segtrain.architecture.semantic.unet import Expansion, require_levels
from segtrain.contracts import Outputs
from segtrain.values import Counts


class UNetPlusPlus(nn.Module):
    """Backbone, nested dense skip connections, and an expanding path (figure 1).

    Node X^{i,j} of level i joins the j maps before it on its level with what node X^{i+1,j-1} of
    the coarser level found (equation 1). Nodes between the paths are as wide as the backbone's map
    of their level.

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
        require_levels(backbone, channels, "U-Net++")
        self.backbone = backbone
        self.align_corners = False
        *skips, inner = backbone.channels
        below = [inner]  # channels of the coarser level's maps
        self.levels = nn.ModuleList()
        for skip, last in zip(reversed(skips), channels, strict=False):
            widths = [skip] * len(below) + [last]
            self.levels.append(
                nn.ModuleList(
                    Expansion(coarser, (j + 1) * skip, widths[j + 1])
                    for j, coarser in enumerate(below)
                )
            )
            below = widths
        rest = channels[len(skips) - 1 :]  # levels that have nothing to join
        self.expansions = nn.ModuleList(
            Expansion(width, 0, out) for width, out in zip(rest, rest[1:], strict=False)
        )
        self.classifier = nn.Conv2d(channels[-1], num_classes, 3, padding=1)
        init_head(self.levels)
        init_head(self.expansions)
        init_classifier(self.classifier)

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) RGB in 0..255 -> logits (N, K, H, W)."""
        height, width = image.shape[2:]
        *skips, inner = self.backbone(image)
        below = [inner]
        for nodes, skip in zip(self.levels, reversed(skips), strict=True):
            maps = [skip]
            for node, coarser in zip(nodes, below, strict=True):
                maps.append(node(coarser, concatenate(maps[::-1]), skip.shape[2:]))
            below = maps
        x = below[-1]
        sizes = [torch.Size([(height + 1) // 2, (width + 1) // 2]), torch.Size([height, width])]
        for expand, size in zip(self.expansions, sizes[-len(self.expansions) :], strict=True):
            x = expand(x, None, size)
        return {"logits": self.classifier(x), "align_corners": self.align_corners}
