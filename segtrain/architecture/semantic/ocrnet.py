"""OCRNet: Yuan, Chen & Wang, Object-Contextual Representations for Semantic Segmentation, ECCV 2020
(arXiv 1909.11065)."""

from torch import Tensor, nn

from segtrain.architecture.backbone import TimmBackbone
from segtrain.architecture.blocks import concatenate, conv_norm_act, init_classifier, init_head
from segtrain.contracts import Outputs, resize
from segtrain.values import Count, ProperFraction


class SoftRegions(nn.Module):
    """A coarse segmentation of its own, whose classes are the object regions (section 3.2)."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = conv_norm_act(in_channels, in_channels, 1)
        self.classifier = nn.Conv2d(in_channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, h, w) -> (N, K, h, w)
        return self.classifier(self.conv(x))


def region_features(features: Tensor, regions: Tensor) -> Tensor:
    """Means of the pixels of each region (equation 8).

    Args:
        features: (N, C, h, w).
        regions: (N, K, h, w) scores, a softmax over whose pixels weighs them.

    Returns:
        (N, C, K, 1).
    """
    weights = regions.flatten(2).softmax(2)
    return (features.flatten(2) @ weights.mT).unsqueeze(3)


class ObjectAttention(nn.Module):
    """Pixels take what they need of the regions (equations 9 and 10).

    Args:
        channels: of pixels and regions.
        key_channels: of queries, keys and values.
        dropout: rate of whole channels at the end.
    """

    def __init__(self, channels: int, key_channels: int, dropout: float) -> None:
        super().__init__()
        self.query = self._projection(channels, key_channels, convolutions=2)
        self.key = self._projection(channels, key_channels, convolutions=2)
        self.value = self._projection(channels, key_channels, convolutions=1)
        self.out = self._projection(key_channels, channels, convolutions=1)
        self.fusion = conv_norm_act(2 * channels, channels, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.scale = key_channels**-0.5

    @staticmethod
    def _projection(in_channels: int, channels: int, convolutions: int) -> nn.Sequential:
        widths = [in_channels, *[channels] * (convolutions - 1)]
        return nn.Sequential(*(conv_norm_act(width, channels, 1) for width in widths))

    def forward(self, pixels: Tensor, regions: Tensor) -> Tensor:
        """(N, C, h, w) and (N, C, K, 1) -> (N, C, h, w)."""
        query, key, value = self.query(pixels), self.key(regions), self.value(regions)
        relation = (self.scale * (query.flatten(2).mT @ key.flatten(2))).softmax(2)  # (N, h w, K)
        context = (value.flatten(2) @ relation.mT).view_as(query)
        return self.dropout(self.fusion(concatenate([self.out(context), pixels])))


class OCRNet(nn.Module):
    """Maps of all branches joined, soft object regions, attention to them (figure 3).

    Args:
        backbone: its maps are resized to the first and joined: those of HRNet, as in the authors'
            code.
        channels: of pixels' and regions' features (512).
        key_channels: of the attention (256).
        dropout: before the classifier, of whole channels: 0.05 in the authors' code, 0 in
            MMSegmentation.
        num_classes: K.
    """

    def __init__(
        self,
        backbone: TimmBackbone,
        channels: Count,
        key_channels: Count,
        dropout: ProperFraction,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.align_corners = False
        joined = sum(backbone.channels)
        self.regions = SoftRegions(joined, num_classes)
        self.conv = conv_norm_act(joined, channels, 3)
        self.attention = ObjectAttention(channels, key_channels, dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        for part in (self.regions, self.conv, self.attention):
            init_head(part)
        for classifier in (self.regions.classifier, self.classifier):
            init_classifier(classifier)

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) RGB in 0..255 -> logits (N, K, h, w) at the first map's stride, mostly 4.

        In training, the regions' own scores are those of the auxiliary head.
        """
        maps = self.backbone(image)
        size = maps[0].shape[2:]
        joined = concatenate([resize(m, size, False) for m in maps])
        regions, pixels = self.regions(joined), self.conv(joined)
        logits = self.classifier(self.attention(pixels, region_features(pixels, regions)))
        outputs: Outputs = {"logits": logits, "align_corners": self.align_corners}
        if self.training:
            outputs["aux"] = regions
        return outputs
