"""FCN head on a dilated backbone (Long et al., CVPR 2015, in the form torchvision trains).

One 3x3 convolution and a classifier on the last map; the paper's VGG-16 skip nets are other models.
"""

from torch import Tensor, nn

from segtrain.architecture.backbone import TimmBackbone
from segtrain.architecture.blocks import conv_norm_act, init_head
from segtrain.contracts import Outputs


class FCNHead(nn.Module):
    """3x3 convolution to a quarter of the channels, batch norm, ReLU, dropout, 1x1 classifier."""

    def __init__(self, in_channels: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.conv = conv_norm_act(in_channels, in_channels // 4, kernel_size=3)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(in_channels // 4, num_classes, 1)
        init_head(self)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, h, w) -> (N, K, h, w)
        return self.classifier(self.dropout(self.conv(x)))


class FCN(nn.Module):
    """Backbone and FCN head, with an auxiliary FCN head on the third stage if asked for.

    Args:
        backbone: gives four feature maps.
        dropout: before the classifiers.
        auxiliary: adds the auxiliary head, which runs in training only.
        num_classes: K.
    """

    def __init__(
        self, backbone: TimmBackbone, dropout: float, auxiliary: bool, num_classes: int
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = FCNHead(backbone.channels[-1], num_classes, dropout)
        self.auxiliary = FCNHead(backbone.channels[-2], num_classes, dropout) if auxiliary else None

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) RGB in 0..255 -> logits (N, K, h, w) at the backbone's output stride."""
        maps = self.backbone(image)
        outputs: Outputs = {"logits": self.head(maps[-1])}
        if self.auxiliary is not None and self.training:
            outputs["aux"] = self.auxiliary(maps[-2])
        return outputs
