"""Probabilities of classes that may overlap, and the masks that thresholds make of them."""

from typing import ClassVar

import torch
from torch import Tensor

from segtrain.errors import UserError
from segtrain.inference.resizing import InputSize, Resampling, Rounding
from segtrain.inference.semantic import SemanticInference
from segtrain.inference.window import SlidingWindow
from segtrain.values import Fraction, Positives, Size


class MultilabelInference(SemanticInference):
    """Looks at each image at every scale, mirrored or not, and averages each class's probability.

    Args:
        window, pad, scales, flip, least_size, size, rounding, resampling, align_scores: as of
            `SemanticInference`; windows average logits.
        thresholds: one a class: of the probability from which on its mask has a pixel; None: those
            that validation chooses, and 0.5 before.

    Raises:
        UserError: `size` is none, or windows average something else.
    """

    task: ClassVar[str] = "multilabel"
    gives_probabilities = True

    def __init__(
        self,
        window: SlidingWindow | None,
        pad: bool,
        scales: Positives,
        flip: bool,
        least_size: Size | None,
        size: InputSize | None,
        rounding: Rounding,
        resampling: Resampling,
        align_scores: bool,
        thresholds: list[Fraction] | None,
    ) -> None:
        if window is not None and window.average != "logits":
            raise UserError(
                f"inference.window.average={window.average}: classes that may overlap have no "
                "softmax; use inference.window.average=logits"
            )
        super().__init__(
            window, pad, scales, flip, None, None, least_size, size,
            rounding=rounding, resampling=resampling, align_scores=align_scores,
        )  # fmt: skip
        self.thresholds = thresholds

    @property
    def protocol(self) -> dict:
        """What results call this way of testing."""
        return {**super().protocol, "thresholds": self.thresholds}

    @property
    def _averaged(self) -> str:
        return "probabilities"

    def _probabilities(self, logits: Tensor) -> Tensor:
        return logits.float().sigmoid()


def masks_of(probabilities: Tensor, thresholds: list[float] | None) -> Tensor:
    """Probabilities (K, H, W) -> masks (K, H, W) bool; without thresholds, from 0.5 on."""
    if thresholds is None:
        return probabilities >= 0.5
    return probabilities >= torch.tensor(thresholds, device=probabilities.device).view(-1, 1, 1)
