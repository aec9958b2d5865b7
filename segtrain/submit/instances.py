"""Instances as servers want them: raw class, score, and a mask of the whole image."""

from collections.abc import Iterator
from typing import NamedTuple

from segtrain.contracts import Detections
from segtrain.label_set import LabelSet
from segtrain.masks import codes_of
from segtrain.task.instance import MASK_THRESHOLD


class FoundInstance(NamedTuple):
    """One object of an image."""

    raw: int  # category id or label id
    score: float
    code: bytes  # COCO's compressed run-length code


def found_instances(
    found: Detections, size: tuple[int, int], labels: LabelSet
) -> Iterator[FoundInstance]:
    """What was found in an image of `size` (H, W), best first, as it is evaluated."""
    codes = codes_of(found, size, MASK_THRESHOLD)
    classes = labels.decode(found["labels"].cpu().numpy()).tolist()
    return map(FoundInstance, classes, found["scores"].float().tolist(), codes)
