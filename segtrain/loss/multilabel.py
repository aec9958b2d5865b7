"""The loss of a network whose classes may overlap: pixel and region terms, weighted and summed."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from segtrain.contracts import Outputs, resize
from segtrain.loss.segmentation import ALL, mean_over_processes, pixel_scores
from segtrain.planes import unpack
from segtrain.values import NonNegative


class MultilabelLoss(nn.Module):
    """A pixel loss on every head's scores, a mean over classes and all processes' valid pixels.

    Scores are resized bilinearly to the labels, in float32.

    Args:
        pixel: (logits, truth) -> loss of every class and pixel, see `loss.binary`.
        region: (logits, truth, valid) -> loss of the main scores as a whole; or None.
        aux_weight: factor of the auxiliary head's term.
        region_weight: factor of the region term.
        presence_weight: factor of the presence term (the SE-loss of EncNet, section 3.2).
    """

    task: ClassVar[str] = "multilabel"
    weighs_by_labels: bool = True

    def __init__(
        self,
        pixel: Callable[[Tensor, Tensor], Tensor],
        region: Callable[[Tensor, Tensor, Tensor], Tensor] | None,
        aux_weight: NonNegative,
        region_weight: NonNegative,
        presence_weight: NonNegative,
    ) -> None:
        super().__init__()
        self.pixel = pixel
        self.region = region
        self.aux_weight = aux_weight
        self.region_weight = region_weight
        self.presence_weight = presence_weight

    def forward(
        self, outputs: Outputs, target: Tensor, weights: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Weighted terms by name; their sum is to be minimised.

        Args:
            outputs: of a batch.
            target: (N, H, W, B) packed labels, see `segtrain.planes`.
            weights: valid pixels that sums are divided by instead of the batch's own, see
                `weights`.
        """
        classes = outputs["logits"].shape[1]
        with torch.autocast(target.device.type, enabled=False):
            masks, valid = unpack(target, classes)
            truth = masks.float()
            if weights is None:
                weights = {ALL: mean_over_processes(valid.sum())}
            divisor = classes * weights[ALL].clamp(min=1e-6)
            terms = {}
            for name, scores in pixel_scores(outputs).items():
                logits = resize(scores.float(), valid.shape[1:], outputs["align_corners"])
                terms[name] = (self.pixel(logits, truth) * valid.unsqueeze(1)).sum() / divisor
                if name == "main" and self.region is not None:
                    terms["region"] = self.region_weight * self.region(logits, truth, valid)
            if "aux" in terms:
                terms["aux"] = self.aux_weight * terms["aux"]
            if "presence" in outputs:
                shown = (masks & valid.unsqueeze(1)).any(-1).any(-1).float()
                presence = nn.functional.binary_cross_entropy_with_logits(
                    outputs["presence"].float(), shown
                )
                terms["presence"] = self.presence_weight * presence
        return terms

    def weights(self, outputs: None, target: Tensor) -> dict[str, Tensor]:
        """What the pixel terms are divided by: the number of valid pixels of (N, H, W, B)."""
        return {ALL: unpack(target, 1)[1].sum().float()}
