"""DeconvNet's inference (Noh et al., ICCV 2015, arXiv 1505.04366, 3.3 and 4.3): box after box.

R boxes of one image, K classes.
"""

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.contracts import resize
from segtrain.inference.semantic import Refinement
from segtrain.inference.window import adjusted_logits
from segtrain.values import FILLED, Count, Positive, Share


class ProposalWise:
    """Scores of boxes that may hold an object, put together over the image.

    Each box, enlarged, is warped to the size of the training crops; the scores of the boxes that
    see a pixel are aggregated, and their softmax is the image's.

    Args:
        boxes: (image (3, H, W) uint8) -> boxes (R, 4) x1 y1 x2 y2 in pixels, best first.
        count: boxes of an image that are looked at.
        context: side of the enlarged box over that of the box.
        side: of the warped crop, in pixels.
        aggregate: `max` over the boxes, zero where none sees a pixel; or `mean`.
        crops_at_once: that go through the network together.
        crf: (image, probabilities (K, H, W)) -> probabilities, applied last; or None.
    """

    task: ClassVar[str] = "semantic"
    gives_probabilities: ClassVar[bool] = True

    def __init__(
        self,
        boxes: Callable[[Tensor], Tensor],
        count: Count,
        context: Positive,
        side: Count,
        aggregate: Literal["max", "mean"],
        crops_at_once: Count,
        crf: Refinement | None,
    ) -> None:
        self.boxes = boxes
        self.count = count
        self.context = context
        self.side = side
        self.aggregate = aggregate
        self.crops_at_once = crops_at_once
        self.crf = crf

    @property
    def protocol(self) -> dict:
        """What results call this way of testing."""
        return {
            "inference": "proposalwise",
            "scales": [1.0],
            "flip": False,
            "crf": self.crf is not None,
            "boxes": type(self.boxes).__name__,
            "count": self.count,
            "aggregate": self.aggregate,
            **({} if self.crf is None else self.crf.protocol),
        }

    def __call__(self, model: nn.Module, images: list[Tensor]) -> list[Tensor]:
        """Images (3, H, W) uint8 RGB -> probabilities (K, H, W), each in its image's size."""
        results = []
        for image in images:
            found = self._aggregated(model, image).softmax(0)
            results.append(found if self.crf is None else self.crf(image, found))
        return results

    def _aggregated(self, model: nn.Module, image: Tensor) -> Tensor:
        """(K, H, W) aggregated scores."""
        size = tuple(image.shape[1:])
        boxes = enlarged(self.boxes(image)[: self.count].to(image.device), self.context, size)
        total, seen = None, image.new_zeros(size, dtype=torch.float32)
        for start in range(0, len(boxes), self.crops_at_once):
            part = boxes[start : start + self.crops_at_once]
            crops = warped(image, part, self.side)
            scores = adjusted_logits(model, crops, None)
            scores = resize(scores, (self.side, self.side), model.align_corners)
            for (left, top, right, bottom), score in zip(part.tolist(), scores, strict=True):
                if total is None:
                    total = score.new_zeros(len(score), *size)
                back = resize(score[None], (bottom - top, right - left), align_corners=False)[0]
                place = total[:, top:bottom, left:right]
                if self.aggregate == "max":
                    torch.maximum(place, back, out=place)
                else:
                    place += back
                    seen[top:bottom, left:right] += 1
        return total if self.aggregate == "max" else total / seen.clamp(min=1)


def enlarged(boxes: Tensor, context: float, size: tuple[int, int]) -> Tensor:
    """(R, 4) int64 boxes, larger about their centres, of at least a pixel inside the image."""
    centre, side = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * context
    limits = torch.tensor(size[::-1], device=boxes.device)
    first = (centre - side / 2).floor().long().clamp(min=0)
    first = first.minimum(limits - 1)
    last = (centre + side / 2).ceil().long().minimum(limits).maximum(first + 1)
    return torch.cat([first, last], 1)


def warped(image: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Crops (R, 3, side, side) float32 of boxes (R, 4), stretched to one size."""
    crops = [
        F.interpolate(
            image[None, :, top:bottom, left:right].float(), (side, side), mode="bilinear",
            antialias=True,
        )
        for left, top, right, bottom in boxes.tolist()
    ]  # fmt: skip
    return torch.cat(crops).contiguous(memory_format=torch.channels_last)


class GridBoxes:
    """Boxes of several sizes on a grid, the whole image first: for want of a proposal method.

    Args:
        shares: sides of the boxes over those of the image, each half overlapping the next.
    """

    def __init__(self, shares: Annotated[list[Share], FILLED]) -> None:
        self.shares = shares

    def __call__(self, image: Tensor) -> Tensor:
        """Image (3, H, W) -> boxes (R, 4) x1 y1 x2 y2, the largest first."""
        height, width = image.shape[1:]
        boxes = [[0.0, 0.0, width, height]]
        for share in sorted(self.shares, reverse=True):
            steps = max(1, round(2 * (1 / share - 1)))
            for row in range(steps + 1):
                for column in range(steps + 1):
                    x, y = (1 - share) * column / steps, (1 - share) * row / steps
                    boxes.append([x * width, y * height, (x + share) * width, (y + share) * height])
        return torch.tensor(boxes)
