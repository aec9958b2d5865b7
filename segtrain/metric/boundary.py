"""Boundary IoU of label maps (Cheng et al. 2021, arXiv 2103.16562), all classes at once.

The boundary of a mask is what an erosion by a 3x3 square, repeated d times, takes from it; outside
the image is no part of any mask. So a pixel is on the boundary of its own class where the square of
2d + 1 pixels around it holds another label or leaves the image: what is the smallest and the
largest label there says it of every class, and the cost does not grow with their number.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from segtrain.metric.confusion import confusion_matrix

DILATION_RATIO = 0.02  # of the image's diagonal, the authors' default


def boundary_width(size: tuple[int, int]) -> int:
    """d: how wide boundaries are in an image of this height and width, in pixels, at least 1."""
    return max(1, round(DILATION_RATIO * math.hypot(*size)))


def near_boundary(labels: Tensor, width: int) -> Tensor:
    """Which pixels an erosion of their own class by `width` pixels removes.

    Args:
        labels: (H, W) of any integer type.
        width: repetitions of the 3x3 erosion.

    Returns:
        (H, W) bool.
    """
    near = torch.ones_like(labels, dtype=torch.bool)
    height, length = labels.shape
    side = 2 * width + 1
    if min(height, length) >= side:  # else every square leaves the image
        lowest, highest = (_extreme(labels, side, of) for of in (torch.minimum, torch.maximum))
        near[width : height - width, width : length - width] = lowest != highest
    return near


def boundary_matrix(
    prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int
) -> Tensor:
    """Boundary pixels by (class in the truth, class in the prediction), K where there is none.

    Void is a region of its own, in the prediction too: along it the masks of both end, so that a
    prediction that is right wherever there is a truth scores 1. Its own pixels do not count.

    Args:
        prediction: (H, W) predicted train ids of a whole image.
        target: (H, W) train ids or ignore_index.
        num_classes: K.
        ignore_index: void.

    Returns:
        (K + 1, K + 1) int64; class k has an intersection of [k, k], and a union of its row and
        column less that. See `boundary_iou`.
    """
    void = target == ignore_index
    width = boundary_width(tuple(target.shape))
    truth, found = (
        labels.masked_fill(~near_boundary(labels, width) | void, num_classes)
        for labels in (target, prediction.to(target.dtype).masked_fill(void, ignore_index))
    )
    return confusion_matrix(found, truth, num_classes + 1, ignore_index)


def boundary_iou(matrix: Tensor) -> list[float | None]:
    """K fractions in 0..1 from the sum of `boundary_matrix` over a split; None for absent classes.

    As mIoU, and as the authors do on Cityscapes, over all images together.
    """
    counts = matrix.double().cpu()
    hits = counts.diagonal()
    ious = (hits / (counts.sum(0) + counts.sum(1) - hits))[:-1].tolist()
    return [None if math.isnan(iou) else iou for iou in ious]


def _extreme(labels: Tensor, side: int, pick: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(H - side + 1, W - side + 1) the smallest or largest of each square of that side."""
    for axis in (0, 1):
        covered = 1
        while covered < side:  # windows of twice the size from two that overlap or touch
            step = min(covered, side - covered)
            length = labels.shape[axis] - step
            labels = pick(labels.narrow(axis, 0, length), labels.narrow(axis, step, length))
            covered += step
    return labels
