"""Instances from a mask classification network (Cheng et al. 2022, arXiv 2112.01527).

Q queries, K classes, H x W pixels of the image.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from segtrain.contracts import Detections
from segtrain.inference.queries import Answer, Fill, Look
from segtrain.inference.resizing import InputSize, Resampling, Rounding, by_size
from segtrain.values import Count, Size

TINY = 1e-6  # pixels, of a mask that has none


class MaskInference:
    """The best pairs of a query and a class, as the authors' code chooses and scores them.

    Args:
        size, least_size, fill, rounding, resampling: of the look at the image, see
            `segtrain.inference.queries.Look`.
        max_detections: of an image.

    Raises:
        UserError: `size` is none.
    """

    task: ClassVar[str] = "instance"
    network: ClassVar[str] = "masks"  # what it looks through

    def __init__(
        self,
        size: InputSize | None,
        least_size: Size | None,
        fill: Fill,
        rounding: Rounding,
        resampling: Resampling,
        max_detections: Count,
    ) -> None:
        self.look = Look(size, least_size, fill, rounding, resampling)
        self.max_detections = max_detections

    @property
    def protocol(self) -> dict:
        """What results call this way of testing."""
        return {"inference": "masks", **self.look.protocol, "max_detections": self.max_detections}

    def __call__(self, model: nn.Module, images: list[Tensor]) -> list[Detections]:
        """Images (3, H, W) uint8 RGB -> what each shows, as masks of the whole image."""
        return by_size(images, lambda equal: self._detect(model, equal))

    def _detect(self, model: nn.Module, images: list[Tensor]) -> list[Detections]:
        return [self.decide(answer) for answer in self.look(model, images)]

    def decide(self, answer: Answer) -> Detections:
        """What the network's answer about an image shows."""
        return instances(answer, self.max_detections)


def instances(
    answer: Answer, max_detections: int, things: frozenset[int] | None = None
) -> Detections:
    """The best pairs of a query and a class; a query may be found as several classes.

    A pair scores the probability of its class times the mean probability of the mask's pixels.

    Args:
        answer: of the network about one image.
        max_detections: pairs by the probability of their class, before others than `things` and
            masks without a pixel are left out.
        things: train ids of the classes that have instances; None for all.
    """
    probabilities = answer.class_logits.softmax(1)[:, :-1]
    best = probabilities.flatten().topk(min(max_detections, probabilities.numel()))
    query, labels = best.indices // probabilities.shape[1], best.indices % probabilities.shape[1]
    scores = best.values
    if things is not None:
        kept = torch.isin(labels, labels.new_tensor(sorted(things)))
        query, labels, scores = query[kept], labels[kept], scores[kept]
    asked, place = query.unique(return_inverse=True)
    masks = torch.zeros(len(asked), *answer.size, dtype=torch.bool, device=query.device)
    sure = scores.new_zeros(len(asked))
    for part, logits in answer.masks(asked):
        masks[part] = logits > 0
        pixels = masks[part].sum((1, 2))
        sure[part] = (logits.sigmoid() * masks[part]).sum((1, 2)) / (pixels + TINY)
    scores = scores * sure[place]
    order = scores.argsort(descending=True, stable=True)
    order = order[scores[order] > 0]
    masks = masks[place[order]]
    return {
        "boxes": boxes_around(masks),
        "scores": scores[order],
        "labels": labels[order],
        "masks": masks,
        "frames": "image",
    }


def boxes_around(masks: Tensor) -> Tensor:
    """Masks (n, H, W) bool, each with a pixel -> boxes (n, 4) float32 x1 y1 x2 y2."""
    bounds = []
    for axis in (1, 2):  # x, y
        shown = masks.any(axis).byte()
        bounds.append((shown.argmax(1), shown.shape[1] - shown.flip(1).argmax(1)))
    (left, right), (top, bottom) = bounds
    return torch.stack([left, top, right, bottom], 1).float()
