"""Panoptic segmentation from a mask classification network (Cheng et al. 2022, arXiv 2112.01527).

Q queries, K classes, H x W pixels of the image.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from segtrain.contracts import Segments
from segtrain.inference.masks import instances
from segtrain.inference.queries import Answer, Fill, Look
from segtrain.inference.resizing import InputSize, Resampling, Rounding, by_size
from segtrain.values import Count, Fraction, Size


class PanopticInference:
    """Every pixel to one segment or none, with the classes of all pixels and the instances.

    Sure queries share the pixels out: each takes those at which its probability, times that of its
    class, is the largest (Cheng et al. 2021, arXiv 2107.06278, 3.4, and the authors' code).

    Args:
        size, least_size, fill, rounding, resampling: of the look at the image, see
            `segtrain.inference.queries.Look`.
        object_threshold: queries whose class is not more probable than this have no segment.
        overlap_threshold: nor have those that get a smaller share of their mask than this.
        max_detections: of the instances of an image.
        things: train ids of the classes whose instances are told apart; the segments of another
            class are one.

    Raises:
        UserError: `size` is none.
    """

    task: ClassVar[str] = "panoptic"
    network: ClassVar[str] = "masks"  # what it looks through

    def __init__(
        self,
        size: InputSize | None,
        least_size: Size | None,
        fill: Fill,
        rounding: Rounding,
        resampling: Resampling,
        object_threshold: Fraction,
        overlap_threshold: Fraction,
        max_detections: Count,
        things: frozenset[int],
    ) -> None:
        self.look = Look(size, least_size, fill, rounding, resampling)
        self.object_threshold = object_threshold
        self.overlap_threshold = overlap_threshold
        self.max_detections = max_detections
        self.things = things

    @property
    def protocol(self) -> dict:
        """What results call this way of testing."""
        return {
            "inference": "panoptic",
            **self.look.protocol,
            "object_threshold": self.object_threshold,
            "overlap_threshold": self.overlap_threshold,
            "max_detections": self.max_detections,
        }

    def __call__(self, model: nn.Module, images: list[Tensor]) -> list[Segments]:
        """Images (3, H, W) uint8 RGB -> what each shows, in its own pixels."""
        return by_size(images, lambda equal: self._segment(model, equal))

    def _segment(self, model: nn.Module, images: list[Tensor]) -> list[Segments]:
        return [self.decide(answer) for answer in self.look(model, images)]

    def decide(self, answer: Answer) -> Segments:
        """What the network's answer about an image shows."""
        own, labels, scores = share_out(
            answer, self.things, self.object_threshold, self.overlap_threshold
        )
        return {
            "map": own,
            "labels": labels,
            "scores": scores,
            "semantic": semantic(answer),
            "instances": instances(answer, self.max_detections, self.things),
        }


def semantic(answer: Answer) -> Tensor:
    """(H, W) uint8: the class of the largest sum over queries of class times mask probability."""
    weights = answer.class_logits.softmax(1)[:, :-1].T.contiguous()  # (K, Q)
    total = weights.new_zeros(len(weights), answer.size[0] * answer.size[1])
    with torch.autocast(total.device.type, enabled=False):
        for part, logits in answer.masks():
            total.addmm_(weights[:, part], logits.sigmoid().flatten(1))
    return total.argmax(0).to(torch.uint8).view(answer.size)


def share_out(
    answer: Answer, things: frozenset[int], object_threshold: float, overlap_threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The map (H, W) int32, labels (n,) int64 and scores (n,) of an image's segments.

    A pixel that its query's mask does not show is of no segment.

    Args:
        answer: of the network about the image.
        things: train ids of the classes whose instances are told apart.
        object_threshold: of the probability of a query's class.
        overlap_threshold: of the pixels that a query gets over those of its mask.
    """
    probabilities = answer.class_logits.softmax(1)
    scores, labels = probabilities.max(1)
    kept = (labels < probabilities.shape[1] - 1) & (scores > object_threshold)
    kept = kept.nonzero()[:, 0]
    scores, labels = scores[kept], labels[kept]
    winner = torch.zeros(answer.size, dtype=torch.long, device=kept.device)
    best = scores.new_full(answer.size, -1.0)
    shown = torch.zeros_like(winner, dtype=torch.bool)  # by the winner's mask
    area = torch.zeros_like(kept)  # of masks
    for part, logits in answer.masks(kept):
        masks = logits.sigmoid()
        area[part] = (masks >= 0.5).sum((1, 2))
        highest, place = (masks * scores[part, None, None]).max(0)
        better = highest > best
        best = torch.where(better, highest, best)
        winner = torch.where(better, place + part.start, winner)
        shown = torch.where(better, masks.gather(0, place[None])[0] >= 0.5, shown)
    won = torch.bincount(winner.flatten(), minlength=len(kept))
    visible = torch.bincount(winner[shown], minlength=len(kept))
    is_segment = (visible > 0) & (won.double() / area >= overlap_threshold)
    numbers, own = number_segments(labels, is_segment, things)
    lookup = torch.tensor([*numbers, 0], dtype=torch.int32, device=kept.device)
    places = torch.tensor(own, dtype=torch.long, device=kept.device)
    return lookup[winner] * shown, labels[places], scores[places]


def number_segments(
    labels: Tensor, is_segment: Tensor, things: frozenset[int]
) -> tuple[list[int], list[int]]:
    """The segment of each query, 0 of none; and the first query of each segment."""
    numbers, own, stuff = [], [], {}
    pairs = zip(labels.tolist(), is_segment.tolist(), strict=True)
    for query, (label, there) in enumerate(pairs):
        if not there:
            numbers.append(0)
        elif label in stuff:
            numbers.append(stuff[label])
        else:
            own.append(query)
            numbers.append(len(own))
            if label not in things:
                stuff[label] = len(own)
    return numbers, own
