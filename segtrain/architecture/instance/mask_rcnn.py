"""Mask R-CNN with a feature pyramid (He et al., ICCV 2017, arXiv 1703.06870)."""

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

from torch import Tensor, nn

from segtrain.architecture.instance.fpn import FeaturePyramid, require_pyramid
from segtrain.architecture.instance.roi import SAMPLING_RATIO, BoxHead, MaskHead, RoIAlign
from segtrain.architecture.instance.two_stage import View, find_boxes, find_masks, learn, look
from segtrain.contracts import DetectionOutputs, TrainInstances
from segtrain.values import Count, Fraction, Given, Natural


class MaskRCNN(nn.Module):
    """Backbone, pyramid, proposals, box head, mask head.

    Args:
        num_classes: K, without background.
        backbone: gives C2..C5.
        rpn: (in_channels, finest_stride) -> proposals.
        channels: of the pyramid and of the mask head.
        box_size: cells a side that the box head pools.
        box_width: of its fully-connected layers.
        mask_size: cells a side that the mask head pools; masks have twice as many.
        positive_iou: overlap from which a region is an example of an object.
        samples: regions an image that train the heads.
        positive_fraction: at most, of the samples.
        roi_aligned: whether RoIAlign takes a cell to have its value at its centre (see `RoIAlign`).
            Masks are learnt from accordingly.
        roi_sampling_ratio: its points along a bin's sides; 0: one a cell.
        norm: `none`, `batch` (synchronised over GPUs) or `group`, behind every convolution of
            pyramid and heads.
        box_convs: convolutions of the box head before one fully-connected layer; 0 for two of
            these.
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
        box_size: Count,
        box_width: Count,
        mask_size: Count,
        positive_iou: Fraction,
        samples: Count,
        positive_fraction: Fraction,
        roi_aligned: bool = False,  # older runs do not say it, nor what follows
        roi_sampling_ratio: Natural = SAMPLING_RATIO,
        norm: Literal["none", "batch", "group"] = "none",
        box_convs: Natural = 0,
    ) -> None:
        super().__init__()
        require_pyramid(backbone.strides)
        self.backbone = backbone
        self.neck = FeaturePyramid(backbone.channels, channels, norm)
        strides = backbone.strides
        self.rpn = rpn(in_channels=channels, finest_stride=strides[0])
        self.align = RoIAlign(roi_aligned, roi_sampling_ratio)
        self.box = BoxHead(
            num_classes, channels, strides, box_size, box_width, box_convs, norm, self.align
        )
        self.mask = MaskHead(num_classes, channels, strides, mask_size, channels, norm, self.align)
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
