"""Panoptic quality (Kirillov et al. 2019, arXiv 1801.00868, 4), counted as panopticapi does.

K classes, H x W pixels.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric

from segtrain.contracts import Segments
from segtrain.metric.confusion import mean_of_known
from segtrain.metric.processes import fixed_point
from segtrain.segments import SegmentMap

BITS = 40  # of an IoU's fraction, with room for 8 million matched segments of a class
MATCH_IOU = 0.5  # a segment that overlaps by more is the only one that does


def panoptic_counts(found: Segments, truth: SegmentMap, num_classes: int) -> Tensor:
    """What one image adds to the panoptic quality of each class.

    A found and a true segment of a class match whose IoU is above 0.5; void pixels of the found one
    count in no union. Found segments that match nothing are not counted where more than half of
    them is void or a crowd of their class; crowds are no misses.

    Args:
        found: of which `map` and `labels` are looked at.
        truth: of the same image, on the same device.
        num_classes: K.

    Returns:
        (4, K) int64: the sum of the IoUs of matched pairs in multiples of 2^-BITS; and matched
        pairs, unmatched found segments and unmatched true ones. The device is not waited for.
    """
    labels = found["labels"]
    shape = len(truth.labels) + 1, len(labels) + 1
    pairs = (truth.map * shape[1] + found["map"]).flatten()
    pixels = torch.bincount(pairs, minlength=shape[0] * shape[1]).view(shape)
    shared = pixels[1:, 1:]  # (true, found), of segments alone
    area, void = pixels[:, 1:].sum(0), pixels[0, 1:]
    own = truth.labels[:, None] == labels
    union = area - void + pixels[1:].sum(1, keepdim=True) - shared
    iou = shared.double() / union
    matched = own & ~truth.crowd[:, None] & (iou > MATCH_IOU)
    excused = void + (shared * (own & truth.crowd[:, None])).sum(0)
    hit = matched.any(0)
    overlaps = fixed_point((iou * matched).sum(0), BITS)
    extra = ~hit & (area > 0) & (2 * excused <= area)
    missed = ~matched.any(1) & ~truth.crowd
    counts = torch.zeros(4, num_classes, dtype=torch.int64, device=labels.device)
    counts[:3].index_add_(1, labels, torch.stack([overlaps, hit.long(), extra.long()]))
    counts[3].index_add_(0, truth.labels, missed.long())
    return counts


def image_quality(counts: Tensor) -> Tensor:
    """Panoptic quality of one image over all classes together, as that of detections is.

    Returns:
        A scalar in 0..1 on the same device, NaN where nothing is and nothing was found.
    """
    overlaps, hits, extra, missed = counts.double().sum(1)
    return overlaps / 2**BITS / (hits + (extra + missed) / 2)


@dataclass(frozen=True)
class Quality:
    """Fractions in 0..1, one a class; None where it is neither in the truth nor found."""

    pq: list[float | None]
    sq: list[float | None]  # segmentation quality: the mean IoU of matched segments, 0 of none
    rq: list[float | None]  # recognition quality, which is F1 of segments

    def means(self, classes: Collection[int]) -> dict[str, float | None]:
        """The mean of each over those of the classes that have one."""
        return {
            name: mean_of_known([values[label] for label in classes])
            for name, values in (("pq", self.pq), ("sq", self.sq), ("rq", self.rq))
        }


def quality(counts: Tensor) -> Quality:
    """Of (4, K), see `panoptic_counts`: PQ = SQ * RQ of each class."""
    overlaps, hits, extra, missed = counts.double().cpu()
    overlaps = overlaps / 2**BITS
    size = hits + (extra + missed) / 2
    shares = overlaps / size, overlaps / hits.clamp(min=1), hits / size
    return Quality(*(
        [value if there else None for value, there in zip(own.tolist(), size > 0, strict=True)]
        for own in shares
    ))  # fmt: skip


class PanopticQuality(Metric):
    """The counts of a split, summed over processes when computed; whole, so in any order.

    Args:
        num_classes: K.
    """

    full_state_update = False

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        zeros = torch.zeros(4, num_classes, dtype=torch.int64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, counts: Tensor) -> None:
        """Adds those of an image (4, K), see `panoptic_counts`."""
        self.counts += counts

    def compute(self) -> Tensor:
        """(4, K) int64 over all processes."""
        return self.counts
