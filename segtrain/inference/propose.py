"""Segment proposals of whole images, as the feature pyramid network tests."""

from typing import ClassVar

from torch import Tensor, nn

from segtrain.contracts import Detections
from segtrain.inference.resizing import by_size, fitted, resized
from segtrain.values import Count


class Propose:
    """One look at one scale, no suppression (Lin et al., arXiv 1612.03144, appendix A).

    Args:
        short_side: what the shorter side is resized to, in pixels.
        long_side: the longer side is never longer; the scale gives way.
        max_proposals: the best of an image that are kept.
    """

    task: ClassVar[str] = "proposal"

    def __init__(
        self, short_side: Count | None, long_side: Count | None, max_proposals: Count
    ) -> None:
        self.short_side = short_side
        self.long_side = long_side
        self.max_proposals = max_proposals

    @property
    def protocol(self) -> dict:
        """What results call this way of testing."""
        return {
            "inference": "propose",
            "scales": [self.short_side],
            "long_side": self.long_side,
            "flip": False,
            "crf": False,
            "max_proposals": self.max_proposals,
        }

    def __call__(self, model: nn.Module, images: list[Tensor]) -> list[Detections]:
        """Images (3, H, W) uint8 RGB -> the proposals of each, in its own pixels.

        Their boxes are the windows of the masks and may reach beyond the image.
        """
        return by_size(images, lambda equal: self._propose(model, equal))

    def _propose(self, model: nn.Module, images: list[Tensor]) -> list[Detections]:
        wanted = {"short": self.short_side, "long": self.long_side}
        size = fitted(images[0].shape[1:], wanted, rounding="down")
        batch, scale = resized(images, size)
        return [
            {
                "boxes": boxes / boxes.new_tensor([*scale, *scale]),
                "scores": scores,
                "labels": scores.new_zeros(len(scores)).long(),
                "masks": masks,
            }
            for boxes, scores, masks in model.propose(list(batch), self.max_proposals)
        ]
