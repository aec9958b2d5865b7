"""FCN head on a dilated backbone, the form in which torchvision and others train "FCN".

3x3 convolutions and a classifier on the last map; the paper's skip nets are in `fcn.py`.
"""

from torch import Tensor, nn

from segtrain.architecture.backbone import TimmBackbone
from segtrain.architecture.blocks import FCNHead
from segtrain.contracts import Outputs
from segtrain.values import Count, ProperFraction


class DilatedFCN(nn.Module):
    """Backbone and FCN head, with an auxiliary FCN head on the third stage if asked for.

    Args:
        backbone: gives four feature maps.
        dropout: before the classifiers.
        auxiliary: adds the auxiliary head, which runs in training only.
        align_corners: how the logits are to be resized.
        num_classes: K.
        convolutions: 3x3 ones before the classifier: 1 in torchvision, 2 in MMSegmentation.
        dilation: of those, and of the auxiliary head's.
        concatenate_input: whether the last map joins their output in one more 3x3 convolution, as
            in MMSegmentation.
    """

    def __init__(
        self,
        backbone: TimmBackbone,
        dropout: ProperFraction,
        auxiliary: bool,
        align_corners: bool,
        num_classes: int,
        convolutions: Count = 1,  # older runs say none of them
        dilation: Count = 1,
        concatenate_input: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.align_corners = align_corners
        _, _, third, last = backbone.channels
        self.head = FCNHead(last, num_classes, dropout, convolutions, dilation, concatenate_input)
        self.auxiliary = (
            FCNHead(third, num_classes, dropout, dilation=dilation) if auxiliary else None
        )

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) RGB in 0..255 -> logits (N, K, h, w) at the backbone's output stride."""
        maps = self.backbone(image)
        outputs: Outputs = {"logits": self.head(maps[-1]), "align_corners": self.align_corners}
        if self.auxiliary is not None and self.training:
            outputs["aux"] = self.auxiliary(maps[-2])
        return outputs
