"""Regions of interest: RoIAlign on pyramid levels, box and mask heads (Mask R-CNN, section 3).

Q positives among R regions, K classes, M cells a side of a mask.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from segtrain.architecture.blocks import at_least_float32, init_classifier, init_head
from segtrain.architecture.instance.boxes import encode, match, sample
from segtrain.architecture.instance.fpn import conv
from segtrain.contracts import TrainInstances

BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the head's regression targets (Fast R-CNN, 3.1)
CANONICAL_SIDE, CANONICAL_LEVEL = 224, 4  # ImageNet's size is pooled from P4 (FPN, equation 1)
SAMPLING_RATIO = 2  # squared: four points, as Mask R-CNN averages (section 3)
# Of a mask head's last weights at first, as in detectron2. Detectron and torchvision have He
# initialisation there, with which the masks of few classes start far from zero.
MASK_STD = 0.001


class RoIAlign(NamedTuple):
    """How regions are read from a map.

    Attributes:
        aligned: whether a cell has its value at its centre, as in Detectron2; if not, at its corner
            (as in Detectron and torchvision), so that what is read lies half a cell off.
        sampling_ratio: points along a bin's sides, over which it averages; 0: one a cell of the
            map that the bin covers.
    """

    aligned: bool
    sampling_ratio: int

    def __call__(self, m: Tensor, regions: Tensor | list[Tensor], size: int, stride: int) -> Tensor:
        """Map (N, C, h, w) and numbered (R, 5) or listed regions -> (R, C, size, size)."""
        return roi_align(m, regions, size, 1 / stride, self.sampling_ratio, self.aligned)


ROI_ALIGN = RoIAlign(aligned=False, sampling_ratio=SAMPLING_RATIO)


class RoIExamples(NamedTuple):
    """The regions that train the heads, image by image; positives come first in each."""

    boxes: list[Tensor]  # (r, 4) each
    labels: Tensor  # (R,) int64, 0 background, 1..K
    positive: Tensor  # (Q,) positions among the R
    positive_boxes: list[Tensor]  # (q, 4) each
    box_target: Tensor  # (Q, 4)
    matched: list[Tensor]  # (q,) each: the object in the image's target


def sample_regions(
    proposals: list[Tensor],
    targets: list[TrainInstances],
    positive_iou: float,
    samples: int,
    positive_fraction: float,
) -> RoIExamples:
    """Draws regions from proposals and true boxes (Fast R-CNN, arXiv 1504.08083, 2.3).

    Args:
        proposals: (n, 4) of each image.
        targets: of each image.
        positive_iou: overlap from which a region is an example of an object.
        samples: regions an image.
        positive_fraction: at most, of the samples.
    """
    boxes, labels, positives, positive_boxes, wanted, matches = [], [], [], [], [], []
    offset = 0
    for found, target in zip(proposals, targets, strict=True):
        regions = torch.cat([found, target["boxes"]])
        matched = match(target["boxes"], regions, positive_iou, positive_iou, best_too=False)
        positive, negative = sample(matched, samples, positive_fraction)
        chosen = torch.cat([positive, negative])
        label = torch.zeros_like(chosen)
        label[: len(positive)] = 1 + target["labels"][matched[positive]]
        boxes.append(regions[chosen])
        labels.append(label)
        positives.append(offset + torch.arange(len(positive), device=chosen.device))
        positive_boxes.append(regions[positive])
        wanted.append(encode(target["boxes"][matched[positive]], regions[positive], BOX_WEIGHTS))
        matches.append(matched[positive])
        offset += len(chosen)
    return RoIExamples(
        boxes, torch.cat(labels), torch.cat(positives), positive_boxes, torch.cat(wanted), matches
    )


def mask_targets(
    target: TrainInstances, matched: Tensor, boxes: Tensor, size: int, aligned: bool = False
) -> Tensor:
    """(q, size, size) shares 0..1 of each cell of boxes (q, 4) that the matched object covers.

    RoIAlign of the object's mask, so where an outline crosses a cell its target lies between.

    Args:
        target: of one image.
        matched: (q,) objects.
        boxes: (q, 4) in the image, or beyond it.
        size: M.
        aligned: see `RoIAlign`, of the mask's pixels.
    """
    result = boxes.new_zeros(len(boxes), size, size)
    windows = target["windows"].tolist()
    starts = [0]
    for left, top, right, bottom in windows:
        starts.append(starts[-1] + (right - left) * (bottom - top))
    for number in matched.unique().tolist():
        left, top, right, bottom = windows[number]
        crop = target["crops"][starts[number] : starts[number + 1]]
        mask = crop.view(1, 1, bottom - top, right - left).to(boxes.dtype)
        own = matched == number
        corner = boxes.new_tensor([left, top, left, top])
        regions = numbered([boxes[own] - corner])
        # The operator itself: its public function would run in Python under determinism on a GPU.
        shares = torch.ops.torchvision.roi_align(mask, regions, 1.0, size, size, -1, aligned)
        result[own] = shares[:, 0]
    return result


def levels_of(boxes: Tensor, num_levels: int) -> Tensor:
    """(R,) 0 for P2 to num_levels - 1: the level whose cells fit a box (FPN, equation 1)."""
    side = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
    level = (CANONICAL_LEVEL + (side / CANONICAL_SIDE).log2() + 1e-6).floor()
    return (level.clamp(2, 1 + num_levels) - 2).long()


def pool(
    maps: list[Tensor],
    strides: list[int],
    boxes: list[Tensor],
    size: int,
    align: RoIAlign = ROI_ALIGN,
) -> Tensor:
    """RoIAlign of every box on the level of its size.

    Args:
        maps: P2.. (N, C, h, w).
        strides: pixels between cells of each map.
        boxes: (r, 4) of each image.
        size: cells a side.
        align: how they are read.

    Returns:
        (R, C, size, size), those of the first image first.
    """
    regions = numbered(boxes)
    levels = levels_of(regions[:, 1:], len(maps))
    places = [torch.where(levels == number)[0] for number in range(len(maps))]
    parts = [
        align(m, regions[own], size, stride)
        for m, stride, own in zip(maps, strides, places, strict=True)
    ]
    return torch.cat(parts).index_select(0, torch.cat(places).argsort())


def numbered(boxes: list[Tensor]) -> Tensor:
    """Boxes (r, 4) of each image -> (R, 5) with the image's number in front."""
    parts = [torch.cat([b.new_full((b.shape[0], 1), i), b], 1) for i, b in enumerate(boxes)]
    return torch.cat(parts)


class BoxHead(nn.Module):
    """Layers that see a region, then scores and class-specific box offsets.

    Either two fully-connected layers (Mask R-CNN, figure 4) or some 3x3 convolutions and one (Wu
    and He 2018, arXiv 1803.08494, 4.2).

    Args:
        num_classes: K.
        in_channels: of the maps.
        strides: of the maps.
        size: cells a side that are pooled.
        width: of the fully-connected layers.
        convs: convolutions before one fully-connected layer; 0 for two of the latter.
        norm: behind the convolutions, see `conv`.
        align: how regions are read from the maps.
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
        align: RoIAlign,
    ) -> None:
        super().__init__()
        self.strides = strides
        self.size = size
        self.align = align
        self.convs = nn.ModuleList(conv(in_channels, in_channels, 3, norm) for _ in range(convs))
        self.fc1 = nn.Linear(in_channels * size**2, width)
        self.fc2 = None if convs else nn.Linear(width, width)
        init_head(self.convs)
        for layer in (self.fc1, self.fc2):
            if layer is not None:
                nn.init.kaiming_uniform_(layer.weight, a=1)
                nn.init.zeros_(layer.bias)
        self.classifier = box_classifier(width, num_classes)

    def forward(self, maps: list[Tensor], boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Boxes (r, 4) of each image -> logits (R, 1 + K) and offsets (R, 1 + K, 4), float32."""
        x = pool(maps, self.strides, boxes, self.size, self.align)
        for layer in self.convs:
            x = layer(x).relu()
        x = self.fc1(x.flatten(1)).relu()
        if self.fc2 is not None:
            x = self.fc2(x).relu()
        return classify_boxes(self.classifier, x)


def box_classifier(width: int, num_classes: int) -> nn.ModuleDict:
    """Last layers of a box head. Background has offsets too, which nothing reads."""
    scores, offsets = nn.Linear(width, 1 + num_classes), nn.Linear(width, 4 * (1 + num_classes))
    for layer, std in ((scores, 0.01), (offsets, 0.001)):
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)
    return nn.ModuleDict({"scores": scores, "boxes": offsets})


def classify_boxes(classifier: nn.ModuleDict, x: Tensor) -> tuple[Tensor, Tensor]:
    """(R, width) -> logits (R, 1 + K) and offsets (R, 1 + K, 4), float32."""
    scores, offsets = (at_least_float32(classifier[name](x)) for name in ("scores", "boxes"))
    return scores, offsets.unflatten(1, (-1, 4))


class MaskHead(nn.Module):
    """Four 3x3 convolutions, a 2x2 deconvolution, and one mask a class (figure 4, right).

    Args:
        num_classes: K.
        in_channels: of the maps.
        strides: of the maps.
        size: cells a side that are pooled; masks have twice as many.
        channels: of the convolutions.
        norm: behind them, see `conv`.
        align: how regions are read from the maps.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        strides: list[int],
        size: int,
        channels: int,
        norm: str,
        align: RoIAlign,
    ) -> None:
        super().__init__()
        self.strides = strides
        self.size = size
        self.align = align
        widths = [in_channels, channels, channels, channels, channels]
        self.convs = nn.ModuleList(
            conv(before, after, 3, norm)
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.deconv = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.classifier = nn.Conv2d(channels, 1 + num_classes, 1)  # as scores, with background
        init_head(self)
        init_classifier(self.classifier, MASK_STD)

    def forward(self, maps: list[Tensor], boxes: list[Tensor], labels: Tensor) -> Tensor:
        """Boxes (q, 4) of each image and their labels (Q,), 1..K -> logits (Q, M, M), float32."""
        x = pool(maps, self.strides, boxes, self.size, self.align)
        for layer in self.convs:
            x = layer(x).relu()
        x = self.classifier(self.deconv(x).relu())
        return at_least_float32(x[torch.arange(labels.shape[0], device=x.device), labels])
