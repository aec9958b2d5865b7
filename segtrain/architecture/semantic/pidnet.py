"""PIDNet: Xu, Xiong & Bhattacharyya, PIDNet: A Real-time Semantic Segmentation Network Inspired by
PID Controllers, CVPR 2023 (arXiv 2206.02066)."""

from torch import Tensor, nn

from segtrain.architecture.blocks import BatchNorm, init_classifier, init_head
from segtrain.architecture.three_branches import ThreeBranches, norm_act_conv
from segtrain.contracts import Outputs
from segtrain.values import Count


def predictor(in_channels: int, channels: int) -> nn.Sequential:
    """What comes before a head's last layer."""
    return nn.Sequential(
        *norm_act_conv(in_channels, channels, 3), BatchNorm(channels), nn.ReLU(inplace=True)
    )


class Head(nn.Module):
    """Batch norm, ReLU, 3x3 convolution, both again, 1x1 classifier."""

    def __init__(self, in_channels: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = predictor(in_channels, channels)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        init_head(self)
        init_classifier(self.classifier)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, h, w) -> (N, K, h, w)
        return self.classifier(self.conv(x))


class AuxiliaryHeads(nn.Module):
    """Classes from the P branch, boundaries from the D branch."""

    def __init__(self, in_channels: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.semantic = Head(in_channels, channels, num_classes)
        self.boundary = nn.Sequential(
            *predictor(in_channels, in_channels // 2), nn.Conv2d(in_channels // 2, 1, 1)
        )
        init_head(self.boundary)
        init_classifier(self.boundary[-1])

    def forward(self, p: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, h, w) each -> (N, K, h, w) and (N, 1, h, w)."""
        return self.semantic(p), self.boundary(d)


class PIDNet(nn.Module):
    """Three branches and the heads of the joined map, of P and of D.

    Args:
        backbone: the branches.
        channels: of the heads for classes: 128, and 256 for L.
        auxiliary: adds the heads of P and D, which run in training only.
        align_corners: how scores are resized; true in the authors' code, whose maps are resized
            without.
        num_classes: K.
    """

    def __init__(
        self,
        backbone: ThreeBranches,
        channels: Count,
        auxiliary: bool,
        align_corners: bool,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.align_corners = align_corners
        p_channels, joined_channels, _ = backbone.channels
        self.head = Head(joined_channels, channels, num_classes)
        self.auxiliary = AuxiliaryHeads(p_channels, channels, num_classes) if auxiliary else None

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) RGB in 0..255 -> logits (N, K, h, w) at output stride 8."""
        p, joined, d = self.backbone(image)
        outputs: Outputs = {"logits": self.head(joined), "align_corners": self.align_corners}
        if self.auxiliary is not None and self.training:
            outputs["aux"], outputs["boundary"] = self.auxiliary(p, d)
        return outputs
