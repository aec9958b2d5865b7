"""What detectors with region proposals and heads do, in training and in testing.

N images, K classes, R regions, Q positives, M cells a side of a mask.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from segtrain.architecture.blocks import at_least_float32
from segtrain.architecture.instance.boxes import clip, decode
from segtrain.architecture.instance.fpn import batch_of, with_coarsest
from segtrain.architecture.instance.roi import (
    BOX_WEIGHTS,
    RoIExamples,
    mask_targets,
    sample_regions,
)
from segtrain.contracts import DetectionOutputs, TrainInstances


class View(NamedTuple):
    """What a network has seen of some images."""

    maps: list[Tensor]  # P2..P5 (N, C, h, w)
    pooled: list[Tensor]  # the same in the form that RoIAlign reads, converted once for all calls
    sizes: list[tuple[int, int]]  # height and width of each image


def look(model: nn.Module, images: list[Tensor]) -> View:
    """Images (3, H, W), uint8 or float in 0..255, of any sizes -> their pyramid."""
    batch = batch_of(images, model.backbone.normalize.mean)
    maps = model.neck(model.backbone(batch))
    pooled = [at_least_float32(m).contiguous() for m in maps]
    return View(maps, pooled, [tuple(image.shape[1:]) for image in images])


def learn(
    model: nn.Module, images: list[Tensor], targets: list[TrainInstances]
) -> DetectionOutputs:
    """Scores and offsets of sampled anchors and regions, with what they should be."""
    view = look(model, images)
    proposals, anchors = model.rpn(with_coarsest(view.maps), view.sizes, targets)
    regions = sample_regions(proposals, targets, *model.sampling)
    scores, deltas = model.box(view.pooled, regions.boxes)
    labels = regions.labels[regions.positive]
    masks = mask_logits(model, view, regions, labels)
    wanted = [
        mask_targets(target, matched, boxes, masks.shape[-1], model.align.aligned)
        for target, matched, boxes in zip(
            targets, regions.matched, regions.positive_boxes, strict=True
        )
    ]
    return {
        **anchors,
        "class_logits": scores,
        "class_target": regions.labels,
        "box_deltas": deltas[regions.positive, labels],
        "box_target": regions.box_target,
        "mask_logits": masks,
        "mask_target": torch.cat(wanted),
    }


def mask_logits(model: nn.Module, view: View, regions: RoIExamples, labels: Tensor) -> Tensor:
    """(Q, M, M) of the positives.

    Where there is none the head sees one region for nothing: batch norm that is synchronised over
    processes waits for all of them.
    """
    if len(labels):
        return model.mask(view.pooled, regions.positive_boxes, labels)
    boxes = [own[: int(number == 0)] for number, own in enumerate(regions.boxes)]
    return model.mask(view.pooled, boxes, labels.new_ones(1))[:0]


def find_boxes(model: nn.Module, view: View) -> list[tuple[Tensor, Tensor]]:
    """Boxes (r, K, 4), one a class, and probabilities (r, K) of each image's proposals."""
    proposals, _ = model.rpn(with_coarsest(view.maps), view.sizes, None)
    scores, deltas = model.box(view.pooled, proposals)
    counts = [boxes.shape[0] for boxes in proposals]
    boxes = decode(deltas, torch.cat(proposals)[:, None], BOX_WEIGHTS)[:, 1:]
    probabilities = scores.softmax(1)[:, 1:]
    return [
        (clip(found, size), sure)
        for found, sure, size in zip(
            boxes.split(counts), probabilities.split(counts), view.sizes, strict=True
        )
    ]


def find_masks(
    model: nn.Module, view: View, boxes: list[Tensor], labels: list[Tensor]
) -> list[Tensor]:
    """Mask probabilities (q, M, M) of boxes (q, 4) with labels (q,), 0..K-1, of each image."""
    logits = model.mask(view.pooled, boxes, 1 + torch.cat(labels))
    return list(logits.sigmoid().split([label.shape[0] for label in labels]))
