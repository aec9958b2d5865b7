"""ParseNet: Liu, Rabinovich & Berg, Looking Wider to See Better, 2015 (arXiv 1506.04579)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.architecture.backbone import TimmBackbone
from segtrain.architecture.blocks import init_classifier
from segtrain.architecture.vgg import VGG16, ReducedVGG16
from segtrain.contracts import Outputs, resize
from segtrain.values import Count, Positive


class L2Norm(nn.Module):
    """Unit length over the channels of each cell, then one learned factor a channel (section 3.3).

    Without it the larger activations of one map drown the others.
    """

    def __init__(self, channels: int, initial_scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1, channels, 1, 1), initial_scale))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, h, w) -> (N, C, h, w)
        length = x.float().square().sum(dim=1, keepdim=True).add(1e-10).sqrt()
        return self.scale * x / length


class ParseNet(nn.Module):
    """Features of one or more maps and the global average of the last, normalised and classified.

    The paper concatenates the maps and classifies them by one 1x1 convolution. Here every map has
    its own, and the scores are summed, which is the same linear function; the global average's
    score, equal in all cells, is added instead of being unpooled. They start from N(0, 0.01), as
    the classifiers of DeepLab's Caffe nets; the paper does not say.

    Args:
        backbone: gives the maps.
        local_maps: how many of the last maps are used: 1 for VOC (fc7), 4 for PASCAL-Context
            (conv3, conv4, conv5, fc7). Scores are resized to the finest of them.
        initial_scale: of the learned factors (10 in section 4).
        align_corners: how scores are resized.
        num_classes: K.
    """

    def __init__(
        self,
        backbone: ReducedVGG16 | VGG16 | TimmBackbone,
        local_maps: Count,
        initial_scale: Positive,
        align_corners: bool,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.align_corners = align_corners
        channels = backbone.channels[-local_maps:]
        self.norms = nn.ModuleList(L2Norm(width, initial_scale) for width in channels)
        self.global_norm = L2Norm(channels[-1], initial_scale)
        self.classifiers = nn.ModuleList(
            nn.Conv2d(width, num_classes, 1, bias=False) for width in channels[:-1]
        )
        self.classifiers.append(nn.Conv2d(channels[-1], num_classes, 1))
        self.global_classifier = nn.Conv2d(channels[-1], num_classes, 1, bias=False)
        for classifier in (*self.classifiers, self.global_classifier):
            init_classifier(classifier)

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) RGB in 0..255 -> logits (N, K, h, w) at the finest used map's stride."""
        maps = self.backbone(image)
        pooled = F.adaptive_avg_pool2d(maps[-1], 1)  # (N, C, 1, 1)
        logits = self.global_classifier(self.global_norm(pooled))
        maps = maps[-len(self.norms) :]
        size = maps[0].shape[2:]
        for feature, norm, classifier in zip(maps, self.norms, self.classifiers, strict=True):
            logits = logits + resize(classifier(norm(feature)), size, self.align_corners)
        return {"logits": logits, "align_corners": self.align_corners}
