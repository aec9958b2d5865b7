"""PANet: Path Aggregation Network (Liu et al., CVPR 2018, arXiv 1803.01534).

R regions, Q positives, K classes, M cells a side of a mask.
"""

from collections.abc import Callable
from functools import reduce
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from segtrain.architecture.blocks import at_least_float32, init_classifier, init_head
from segtrain.architecture.instance.fpn import FeaturePyramid, conv, require_pyramid
from segtrain.architecture.instance.roi import (
    MASK_STD,
    ROI_ALIGN,
    SAMPLING_RATIO,
    RoIAlign,
    box_classifier,
    classify_boxes,
    pool,
)
from segtrain.architecture.instance.two_stage import View, find_boxes, find_masks, learn, look
from segtrain.contracts import DetectionOutputs, TrainInstances
from segtrain.values import Count, Fraction, Given, Natural


class PANet(nn.Module):
    """Mask R-CNN with a bottom-up path, pooling from all levels, and fused masks.

    Every new part can be left out, as in the paper's ablation (table 3).

    Args:
        num_classes: K, without background.
        backbone: gives C2..C5.
        rpn: (in_channels, finest_stride) -> proposals.
        channels: of the pyramid and of the heads' convolutions.
        norm: `none`, `batch` (synchronised over GPUs, as in the paper) or `group`, behind every
            convolution of pyramid and heads.
        bottom_up: the path of section 3.1; without it the pyramid is FPN's.
        adaptive_pooling: section 3.2; without it each region is pooled from one level.
        fusion: the fully-connected branch of the mask head, section 3.3.
        box_convs: convolutions of the box head before one fully-connected layer: 4 in the heavier
            head of section 4.2; 0 for two fully-connected layers.
        box_size: cells a side that the box head pools.
        box_width: of its fully-connected layers.
        mask_size: cells a side that the mask head pools; masks have twice as many.
        positive_iou: overlap from which a region is an example of an object.
        samples: regions an image that train the heads.
        positive_fraction: at most, of the samples.
        roi_aligned: whether RoIAlign takes a cell to have its value at its centre (see `RoIAlign`).
            Masks are learnt from accordingly.
        roi_sampling_ratio: its points along a bin's sides; 0: one a cell.
    """

    task: ClassVar[str] = "instance"

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Module,
        rpn: Annotated[
            Callable[..., nn.Module], Given("in_channels", "finest_stride")
        ],
        channels: Count,
        norm: Literal["none", "batch", "group"],
        bottom_up: bool,
        adaptive_pooling: bool,
        fusion: bool,
        box_convs: Natural,
        box_size: Count,
        box_width: Count,
        mask_size: Count,
        positive_iou: Fraction,
        samples: Count,
        positive_fraction: Fraction,
        roi_aligned: bool = False,  # older runs do not say it, nor the ratio
        roi_sampling_ratio: Natural = SAMPLING_RATIO,
    ) -> None:
        super().__init__()
        strides = backbone.strides
        require_pyramid(backbone.strides)
        self.backbone = backbone
        pyramid = FeaturePyramid(backbone.channels, channels, norm)
        self.neck = PathAggregation(pyramid, norm) if bottom_up else pyramid
        self.rpn = rpn(in_channels=channels, finest_stride=strides[0])
        self.align = RoIAlign(roi_aligned, roi_sampling_ratio)
        self.box = AdaptiveBoxHead(
            num_classes,
            channels,
            strides,
            box_size,
            box_width,
            box_convs,
            norm,
            adaptive_pooling,
            self.align,
        )
        self.mask = FusedMaskHead(
            num_classes, channels, strides, mask_size, norm, adaptive_pooling, fusion, self.align
        )
        self.sampling = (positive_iou, samples, positive_fraction)

    def forward(self, images: list[Tensor], targets: list[TrainInstances]) -> DetectionOutputs:
        """Images (3, H, W) of any sizes, in 0..255, and what they show -> what to learn from."""
        return learn(self, images, targets)

    def look(self, images: list[Tensor]) -> View:
        """Images (3, H, W) of any sizes, in 0..255 -> what the other methods work on."""
        return look(self, images)

    def find_boxes(self, view: View) -> list[tuple[Tensor, Tensor]]:
        """Boxes (r, K, 4), one a class, and probabilities (r, K) of each image's proposals."""
        return find_boxes(self, view)

    def find_masks(self, view: View, boxes: list[Tensor], labels: list[Tensor]) -> list[Tensor]:
        """Mask probabilities (q, M, M) of boxes (q, 4) with labels (q,) of each image."""
        return find_masks(self, view, boxes, labels)


class PathAggregation(nn.Module):
    """A bottom-up path on top of FPN's top-down one (section 3.1).

    N2 = P2, N(i+1) = ReLU(conv(ReLU(conv_stride2(Ni)) + P(i+1))).

    Args:
        pyramid: gives P2..P5.
        norm: behind every convolution.
    """

    def __init__(self, pyramid: FeaturePyramid, norm: str) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.channels = pyramid.channels
        steps = len(pyramid.outputs) - 1
        self.downs = nn.ModuleList(
            conv(self.channels, self.channels, 3, norm, stride=2) for _ in range(steps)
        )
        self.outputs = nn.ModuleList(
            conv(self.channels, self.channels, 3, norm) for _ in range(steps)
        )
        init_head(self.downs)
        init_head(self.outputs)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """C2..C5 (N, in_channels, h, w) -> N2..N5 (N, channels, h, w)."""
        finest, *coarser = self.pyramid(maps)
        levels = [finest]
        for down, output, p in zip(self.downs, self.outputs, coarser, strict=True):
            levels.append(output(down(levels[-1]).relu() + p).relu())
        return levels


class AdaptiveBoxHead(nn.Module):
    """Scores and box offsets from all levels, fused behind the first layer (sections 3.2, 4.2).

    Args:
        num_classes: K.
        in_channels: of the maps.
        strides: of the maps.
        size: cells a side that are pooled.
        width: of the fully-connected layers.
        convs: convolutions before one fully-connected layer; 0 for two of the latter.
        norm: behind the convolutions.
        adaptive: whether regions are pooled from all levels.
        align: how they are read.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        strides: list[int],
        size: int,
        width: int,
        convs: int,
        norm: str,
        adaptive: bool,
        align: RoIAlign = ROI_ALIGN,
    ) -> None:
        super().__init__()
        self.strides = strides
        self.size = size
        self.adaptive = adaptive
        self.align = align
        cells = in_channels * size**2

        def first() -> nn.Module:
            if convs:
                return conv(in_channels, in_channels, 3, norm)
            return nn.Sequential(nn.Flatten(), nn.Linear(cells, width))

        self.first = nn.ModuleList(first() for _ in (strides if adaptive else [None]))
        self.convs = nn.ModuleList(
            conv(in_channels, in_channels, 3, norm) for _ in range(convs - 1)
        )
        self.fc = nn.Linear(cells if convs else width, width)
        init_head(self)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)
        self.classifier = box_classifier(width, num_classes)

    def forward(self, maps: list[Tensor], boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Boxes (r, 4) of each image -> logits (R, 1 + K) and offsets (R, 1 + K, 4), float32."""
        levels = pooled_levels(maps, self.strides, boxes, self.size, self.adaptive, self.align)
        x = fuse(self.first, levels)
        for layer in self.convs:
            x = layer(x).relu()
        return classify_boxes(self.classifier, self.fc(x.flatten(1)).relu())


class FusedMaskHead(nn.Module):
    """Mask R-CNN's head, pooled from all levels, and a fully-connected branch (figure 4).

    The branch leaves the third convolution; it sees the whole region from fixed places, and its
    one mask is added to those of all classes.

    Args:
        num_classes: K.
        in_channels: of the maps and of the convolutions.
        strides: of the maps.
        size: cells a side that are pooled; masks have twice as many.
        norm: behind the convolutions.
        adaptive: whether regions are pooled from all levels.
        fusion: whether there is the fully-connected branch.
        align: how regions are read.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        strides: list[int],
        size: int,
        norm: str,
        adaptive: bool,
        fusion: bool,
        align: RoIAlign = ROI_ALIGN,
    ) -> None:
        super().__init__()
        self.strides = strides
        self.size = size
        self.adaptive = adaptive
        self.align = align
        self.first = nn.ModuleList(
            conv(in_channels, in_channels, 3, norm) for _ in (strides if adaptive else [None])
        )
        self.convs = nn.ModuleList(conv(in_channels, in_channels, 3, norm) for _ in range(3))
        self.deconv = nn.ConvTranspose2d(in_channels, in_channels, 2, stride=2)
        self.classifier = nn.Conv2d(in_channels, 1 + num_classes, 1)  # as scores, with background
        self.branch = None
        if fusion:
            narrow = in_channels // 2
            self.branch = nn.Sequential(
                conv(in_channels, in_channels, 3, norm),
                nn.ReLU(inplace=True),
                conv(in_channels, narrow, 3, norm),
                nn.ReLU(inplace=True),
                nn.Flatten(),
                nn.Linear(narrow * size**2, (2 * size) ** 2),
            )
        init_head(self)
        init_classifier(self.classifier, MASK_STD)

    def forward(self, maps: list[Tensor], boxes: list[Tensor], labels: Tensor) -> Tensor:
        """Boxes (q, 4) of each image and their labels (Q,), 1..K -> logits (Q, M, M), float32."""
        levels = pooled_levels(maps, self.strides, boxes, self.size, self.adaptive, self.align)
        x = fuse(self.first, levels)
        *before, last = self.convs
        for layer in before:
            x = layer(x).relu()
        masks = self.classifier(self.deconv(last(x).relu()).relu())
        masks = masks[torch.arange(labels.shape[0], device=x.device), labels]
        if self.branch is not None:
            masks = masks + self.branch(x).view_as(masks)
        return at_least_float32(masks)


def pooled_levels(
    maps: list[Tensor],
    strides: list[int],
    boxes: list[Tensor],
    size: int,
    adaptive: bool,
    align: RoIAlign,
) -> list[Tensor]:
    """RoIAlign (R, C, size, size) of every box on every level, or on that of its size alone."""
    if not adaptive:
        return [pool(maps, strides, boxes, size, align)]
    return [align(m, boxes, size, stride) for m, stride in zip(maps, strides, strict=True)]


def fuse(layers: nn.ModuleList, levels: list[Tensor]) -> Tensor:
    """Each level through a layer of its own, then the element-wise maximum and ReLU (3.2)."""
    seen = [layer(level) for layer, level in zip(layers, levels, strict=True)]
    return reduce(torch.maximum, seen).relu()
