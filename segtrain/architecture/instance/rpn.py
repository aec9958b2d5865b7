"""Region proposal network on a feature pyramid (Ren et al. 2015, arXiv 1506.01497; FPN, 4.1)."""

from typing import TypedDict

import torch
from torch import Tensor, nn

from segtrain.architecture.blocks import at_least_float32
from segtrain.architecture.instance.boxes import (
    clip,
    decode,
    encode,
    grid_anchors,
    match,
    sample,
)
from segtrain.contracts import TrainInstances
from segtrain.errors import UserError
from segtrain.suppression import suppress
from segtrain.values import Count, Fraction, Positives

WEIGHTS = (1.0, 1.0, 1.0, 1.0)
LEVELS = 5  # P2 to P6
SMALLEST_SIDE = 1e-3  # pixels, of a proposal


class ProposalCounts(TypedDict):
    """How many proposals are kept at most, in training and in the test."""

    train: Count
    test: Count


class AnchorExamples(TypedDict):
    """The anchors that train the network, of all images together."""

    objectness: Tensor  # (S,) logits
    objectness_target: Tensor  # (S,) 1.0 for the P positives, which come first, 0.0 for negatives
    anchor_deltas: Tensor  # (P, 4)
    anchor_target: Tensor  # (P, 4)


class RegionProposals(nn.Module):
    """3x3 convolutions, mostly one, and two 1x1 siblings, shared by all levels.

    Args:
        in_channels: of the pyramid's maps.
        finest_stride: pixels between the cells of the first map.
        anchor_sizes: one a level, in pixels.
        aspect_ratios: height / width of a cell's anchors.
        positive_iou, negative_iou: see `match`.
        samples: anchors an image that train.
        positive_fraction: at most, of the samples.
        pre_nms: best proposals of each level that enter suppression, in `train` and `test`.
        post_nms: best proposals of an image that leave it, in `train` and `test`.
        nms_iou: overlap from which the worse of two proposals is dropped, level by level.
        exact_anchors: whether anchors have their exact sides and stand a stride apart, as in
            Detectron2. If not, their sides are rounded, and they spread over the batch, as in
            torchvision: where P5 has an odd number of cells, those of P6 are a little closer.
        convs: 3x3 convolutions before the siblings.

    Raises:
        UserError: there is not one anchor size a level.
    """

    def __init__(
        self,
        in_channels: int,
        finest_stride: int,
        anchor_sizes: Positives,
        aspect_ratios: Positives,
        positive_iou: Fraction,
        negative_iou: Fraction,
        samples: Count,
        positive_fraction: Fraction,
        pre_nms: ProposalCounts,
        post_nms: ProposalCounts,
        nms_iou: Fraction,
        exact_anchors: bool = False,  # older runs say neither
        convs: Count = 1,
    ) -> None:
        super().__init__()
        if len(anchor_sizes) != LEVELS:
            raise UserError(f"rpn.anchor_sizes={anchor_sizes}: expected {LEVELS}, of P2 to P6")
        self.conv = nn.Conv2d(in_channels, in_channels, 3, padding=1)
        self.convs = nn.ModuleList(
            nn.Conv2d(in_channels, in_channels, 3, padding=1) for _ in range(convs - 1)
        )
        self.objectness = nn.Conv2d(in_channels, len(aspect_ratios), 1)
        self.deltas = nn.Conv2d(in_channels, 4 * len(aspect_ratios), 1)
        for layer in (self.conv, *self.convs, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        self.finest_stride = finest_stride
        self.anchor_sizes = anchor_sizes
        self.aspect_ratios = aspect_ratios
        self.positive_iou = positive_iou
        self.negative_iou = negative_iou
        self.samples = samples
        self.positive_fraction = positive_fraction
        self.pre_nms = pre_nms
        self.post_nms = post_nms
        self.nms_iou = nms_iou
        self.exact_anchors = exact_anchors

    def forward(
        self,
        maps: list[Tensor],
        sizes: list[tuple[int, int]],
        targets: list[TrainInstances] | None,
    ) -> tuple[list[Tensor], AnchorExamples | None]:
        """Proposals (n, 4) of each image, best first, and in training the anchors to learn from.

        Args:
            maps: (N, C, h, w) each, P2..P6.
            sizes: height and width of each image without its padding.
            targets: of each image, in training.
        """
        levels = [self.score(m) for m in maps]
        anchors = self._anchors(maps)
        with torch.no_grad():
            proposals = self._propose(levels, anchors, sizes)
        if targets is None:
            return proposals, None
        objectness, deltas = (torch.cat(parts, 1) for parts in zip(*levels, strict=True))
        return proposals, self._examples(objectness, deltas, torch.cat(anchors), targets)

    def score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, h, w) -> objectness (N, h * w * A) and offsets (N, h * w * A, 4)."""
        hidden = self.conv(x).relu()
        for layer in self.convs:
            hidden = layer(hidden).relu()
        objectness = self.objectness(hidden).permute(0, 2, 3, 1).flatten(1)
        deltas = self.deltas(hidden).permute(0, 2, 3, 1).reshape(len(x), -1, 4)
        return at_least_float32(objectness), at_least_float32(deltas)

    def _anchors(self, maps: list[Tensor]) -> list[Tensor]:
        """(h * w * A, 4) of each level."""
        batch = [self.finest_stride * length for length in maps[0].shape[2:]]
        anchors = []
        for level, (m, size) in enumerate(zip(maps, self.anchor_sizes, strict=True)):
            stride = (self.finest_stride * 2**level,) * 2
            if not self.exact_anchors:
                stride = tuple(side // n for side, n in zip(batch, m.shape[2:], strict=True))
            anchors.append(
                grid_anchors(
                    m.shape[2:],
                    stride,
                    size,
                    self.aspect_ratios,
                    m.device,
                    rounded=not self.exact_anchors,
                )
            )
        return anchors

    def _propose(
        self,
        levels: list[tuple[Tensor, Tensor]],
        anchors: list[Tensor],
        sizes: list[tuple[int, int]],
    ) -> list[Tensor]:
        mode = "train" if self.training else "test"
        scores, boxes, numbers = [], [], []
        for number, ((objectness, deltas), level_anchors) in enumerate(
            zip(levels, anchors, strict=True)
        ):
            count = min(self.pre_nms[mode], objectness.shape[1])
            best, chosen = objectness.topk(count, 1)  # (N, count)
            picked = deltas.gather(1, chosen[..., None].expand(-1, -1, 4))
            scores.append(best.sigmoid())
            boxes.append(decode(picked, level_anchors[chosen], WEIGHTS))
            numbers.append(torch.full_like(chosen, number))
        merged = (torch.cat(parts, 1) for parts in (boxes, scores, numbers))
        return [
            self._suppress(*image, size, self.post_nms[mode])
            for *image, size in zip(*merged, sizes, strict=True)
        ]

    def _suppress(
        self, boxes: Tensor, scores: Tensor, levels: Tensor, size: tuple[int, int], count: int
    ) -> Tensor:
        boxes = clip(boxes, size)
        keep = ((boxes[:, 2:] - boxes[:, :2]) >= SMALLEST_SIDE).all(1)
        boxes, scores, levels = boxes[keep], scores[keep], levels[keep]
        return boxes[suppress(boxes, scores, levels, self.nms_iou, max(size))[:count]]

    def _examples(
        self, objectness: Tensor, deltas: Tensor, anchors: Tensor, targets: list[TrainInstances]
    ) -> AnchorExamples:
        positives, negatives, wanted = [], [], []
        for number, target in enumerate(targets):
            matched = match(
                target["boxes"], anchors, self.positive_iou, self.negative_iou, best_too=True
            )
            positive, negative = sample(matched, self.samples, self.positive_fraction)
            wanted.append(encode(target["boxes"][matched[positive]], anchors[positive], WEIGHTS))
            positives.append(number * len(anchors) + positive)
            negatives.append(number * len(anchors) + negative)
        positive, negative = torch.cat(positives), torch.cat(negatives)
        target = torch.zeros(len(positive) + len(negative), device=anchors.device)
        target[: len(positive)] = 1
        return {
            "objectness": objectness.flatten()[torch.cat([positive, negative])],
            "objectness_target": target,
            "anchor_deltas": deltas.flatten(0, 1)[positive],
            "anchor_target": torch.cat(wanted),
        }
