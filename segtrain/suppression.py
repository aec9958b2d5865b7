"""Non-maximum suppression within groups, also in exported graphs."""

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float, side: int) -> Tensor:
    """Positions of the boxes that no better one of their group overlaps, best first.

    Args:
        boxes: (n, 4) x1 y1 x2 y2 in pixels, within 0..side.
        scores: (n,), not negative.
        groups: (n,) classes, or levels of a pyramid.
        iou: overlap from which the worse of two is dropped.
        side: the longer one of the image.
    """
    if torch.compiler.is_exporting():
        # torchvision decides by the number of boxes how it goes on, which a graph cannot: groups
        # that lie apart do not overlap. It also tells torch.export that two or more boxes stay;
        # two far away make that true, and are the last.
        apart = boxes + groups[:, None].to(boxes.dtype) * (side + 1)
        far = boxes.new_tensor([[-4, -4, -3, -3], [-2, -2, -1, -1]])
        scores = torch.cat([scores, scores.new_full((2,), -1)])
        return nms(torch.cat([apart, far]), scores, iou)[:-2]
    return batched_nms(boxes, scores, groups, iou)
