"""FCN head on a dilated backbone, the form in which torchvision and others train "FCN".

One 3x3 convolution and a classifier on the last map; the paper's skip nets are in `fcn.py`.
"""

from torch import Tensor, nn

from segtrain.architecture.backbone import TimmBackbone
from segtrain.architecture.blocks import FCNHead
from segtrain.contracts import Outputs
from segtrain.values import ProperFraction


class DilatedFCN(nn.Module):
    """Backbone and FCN head, with an auxiliary FCN head on the third stage if asked for.

    Args:
        backbone: gives four feature maps.
        dropout: before the classifiers.
        auxiliary: adds the auxiliary head, which runs in training only.
        align_corners: how the logits are to be resized.
        num_classes: K.
    """

    def __init__(
        self,
        backbone: TimmBackbone,
        dropout: ProperFraction,
        auxiliary: bool,
        align_corners: bool,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.align_corners = align_corners
        self.head = FCNHead(backbone.channels[-1], num_classes, dropout)
        self.auxiliary = FCNHead(backbone.channels[-2], num_classes, dropout) if auxiliary else None

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) RGB in 0..255 -> logits (N, K, h, w) at the backbone's output stride."""
        maps = self.backbone(image)
        outputs: Outputs = {"logits": self.head(maps[-1]), "align_corners": self.align_corners}
        if self.auxiliary is not None and self.training:
            outputs["aux"] = self.auxiliary(maps[-2])
        return outputs
