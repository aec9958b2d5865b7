"""Linear head: Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, TMLR 2024
(arXiv 2304.07193, section 7.4)."""

from torch import Tensor, nn

from segtrain.architecture.backbone import TimmBackbone
from segtrain.architecture.blocks import BatchNorm, concatenate, init_classifier
from segtrain.architecture.vit import PlainViT
from segtrain.contracts import Outputs, resize
from segtrain.values import ProperFraction


class Linear(nn.Module):
    """Batch norm and a 1x1 convolution on the backbone's maps, side by side.

    Args:
        backbone: a plain vision transformer, as a rule; maps are resized to the first.
        dropout: rate before the classifier, of whole channels: 0 in DINOv2's code, 0.1 in DINOv3's.
        num_classes: K.
    """

    def __init__(
        self, backbone: PlainViT | TimmBackbone, dropout: ProperFraction, num_classes: int
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.align_corners = False
        width = sum(backbone.channels)
        self.norm = BatchNorm(width)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        init_classifier(self.classifier)

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) RGB in 0..255 -> logits (N, K, h, w) at the first map's stride."""
        maps = self.backbone(image)
        joined = concatenate([resize(x, maps[0].shape[2:], False) for x in maps])
        logits = self.classifier(self.dropout(self.norm(joined)))
        return {"logits": logits, "align_corners": self.align_corners}
