"""Boxes, anchors, matching and sampling, as pure functions.

A box is x1 y1 x2 y2 in pixels, x2 and y2 outer edges.
"""

import math

import torch
from torch import Tensor
from torchvision.ops import box_iou

NEGATIVE, UNDECIDED = -1, -2  # what `match` says of boxes without an object
LARGEST_GROWTH = math.log(1000 / 16)  # of a side, in log space; keeps exp() of early steps finite
OBJECTS_AT_ONCE = 64  # whose overlaps with all anchors are in memory together


def grid_anchors(
    grid: tuple[int, int],
    stride: tuple[int, int],
    size: float,
    aspect_ratios: list[float],
    device: torch.device,
    rounded: bool = True,
) -> Tensor:
    """Anchors of one pyramid level (Faster R-CNN, arXiv 1506.01497, 3.1.1).

    Args:
        grid: h and w of the level's map.
        stride: pixels from one cell to the next, vertically and horizontally.
        size: square root of an anchor's area, in pixels.
        aspect_ratios: A ratios height / width.
        device: of the result.
        rounded: whether their sides are whole pixels.

    Returns:
        (h * w * A, 4) float32, those of one cell together, rows first.
    """
    root = torch.tensor(aspect_ratios, device=device).sqrt()
    half = torch.stack([size / root, size * root], 1) / 2
    cell = torch.cat([-half, half], 1)  # (A, 4)
    if rounded:
        cell = cell.round()
    y, x = (torch.arange(n, device=device) * step for n, step in zip(grid, stride, strict=True))
    y, x = torch.meshgrid(y, x, indexing="ij")
    corners = torch.stack([x, y, x, y], 2).view(-1, 1, 4)  # (h * w, 1, 4)
    return (corners + cell).view(-1, 4)


def encode(boxes: Tensor, anchors: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Offsets (n, 4) that lead from anchors (n, 4) to boxes (n, 4) (R-CNN, arXiv 1311.2524, C).

    Centre offsets are in sides of the anchor, side ratios in log space; both are multiplied by
    `weights` (x, y, width, height).
    """
    centre, side = _centres(boxes)
    anchor_centre, anchor_side = _centres(anchors)
    offsets = torch.cat([(centre - anchor_centre) / anchor_side, (side / anchor_side).log()], -1)
    return offsets * offsets.new_tensor(weights)


def decode(deltas: Tensor, anchors: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Boxes (..., 4) to which offsets (..., 4) lead from anchors (..., 4); inverse of `encode`."""
    centre, side = _centres(anchors)
    deltas = deltas / deltas.new_tensor(weights)
    centre = centre + deltas[..., :2] * side
    half = deltas[..., 2:].clamp(max=LARGEST_GROWTH).exp() * side / 2
    return torch.cat([centre - half, centre + half], -1)


def _centres(boxes: Tensor) -> tuple[Tensor, Tensor]:
    side = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + side / 2, side


def match(
    objects: Tensor, boxes: Tensor, positive_iou: float, negative_iou: float, best_too: bool
) -> Tensor:
    """The object of which each box is an example.

    Args:
        objects: (n, 4).
        boxes: (m, 4) anchors or proposals.
        positive_iou: from this overlap on, a box stands for the object that it overlaps most.
        negative_iou: below this overlap with every object, it stands for none.
        best_too: whether the boxes with an object's largest overlap count as well, however small
            that is (Faster R-CNN, 3.1.2).

    Returns:
        (m,) int64: an object's number, NEGATIVE or UNDECIDED.
    """
    if not len(objects):
        return torch.full((len(boxes),), NEGATIVE, device=boxes.device)
    largest = torch.full_like(boxes[:, 0], -1.0, dtype=torch.result_type(objects, boxes))
    nearest = torch.zeros(len(boxes), dtype=torch.long, device=boxes.device)
    is_best = torch.zeros_like(nearest, dtype=torch.bool)
    for start in range(0, len(objects), OBJECTS_AT_ONCE):
        overlaps = box_iou(objects[start : start + OBJECTS_AT_ONCE], boxes)  # (<= 64, m)
        values, numbers = overlaps.max(0)
        nearest = torch.where(values > largest, start + numbers, nearest)
        largest = torch.maximum(values, largest)
        if best_too:
            tops = overlaps.max(1, keepdim=True).values
            is_best |= ((overlaps == tops) & (tops > 0)).any(0)
    matched = torch.where(largest >= negative_iou, UNDECIDED, NEGATIVE)
    return torch.where((largest >= positive_iou) | is_best, nearest, matched)


def sample(matched: Tensor, count: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """Draws examples at random: positions of positives and of negatives.

    At most `positive_fraction` of `count` are positives; negatives fill up the rest.
    """
    positive = torch.where(matched >= 0)[0]
    negative = torch.where(matched == NEGATIVE)[0]
    positive = _draw(positive, int(count * positive_fraction))
    return positive, _draw(negative, count - len(positive))


def _draw(positions: Tensor, count: int) -> Tensor:
    if len(positions) <= count:
        return positions
    return positions[torch.randperm(len(positions), device=positions.device)[:count]]


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (..., 4) cut off at the edges of an image of `size`, height and width."""
    height, width = size
    return torch.stack(
        [
            boxes[..., 0].clamp(0, width),
            boxes[..., 1].clamp(0, height),
            boxes[..., 2].clamp(0, width),
            boxes[..., 3].clamp(0, height),
        ],
        -1,
    )
