"""Losses of detectors and of segment proposals, as means over all processes' examples."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.contracts import DetectionOutputs, ProposalOutputs
from segtrain.loss.segmentation import mean_over_processes
from segtrain.values import NonNegative


class DetectionLoss(nn.Module):
    """Five terms of equal weight (Faster R-CNN, equation 1; Mask R-CNN, section 3).

    Box terms are sums over positives, divided by the number of all samples, so that positives
    count the same in images with few and with many.

    Args:
        anchor_beta: where the smooth L1 of anchor offsets turns from a square into a line.
        box_beta: the same for the offsets of regions.
    """

    task: ClassVar[str] = "instance"

    def __init__(self, anchor_beta: NonNegative, box_beta: NonNegative) -> None:
        super().__init__()
        self.anchor_beta = anchor_beta
        self.box_beta = box_beta

    def forward(
        self, outputs: DetectionOutputs, weights: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Terms by name; their sum is to be minimised.

        Args:
            outputs: of a batch.
            weights: numbers of examples to divide by, instead of the batch's; see `weights`.
        """
        anchors, regions, pixels = divisors(self.weights(outputs), weights)
        class_term = F.cross_entropy(
            outputs["class_logits"], outputs["class_target"], reduction="sum"
        )
        return {
            "objectness": objectness_sum(outputs) / anchors,
            "anchor": self._offsets(outputs, "anchor", self.anchor_beta) / anchors,
            "class": class_term / regions,
            "box": self._offsets(outputs, "box", self.box_beta) / regions,
            "mask": mask_sum(outputs) / pixels,
        }

    def weights(self, outputs: DetectionOutputs) -> dict[str, Tensor]:
        """How many anchors, regions and mask cells the batch trains with."""
        names = {"anchors": "objectness", "regions": "class_target", "pixels": "mask_logits"}
        return {name: count(outputs[key]) for name, key in names.items()}

    def _offsets(self, outputs: DetectionOutputs, kind: str, beta: float) -> Tensor:
        found, wanted = outputs[f"{kind}_deltas"], outputs[f"{kind}_target"]
        return F.smooth_l1_loss(found, wanted, beta=beta, reduction="sum")


class ProposalLoss(nn.Module):
    """Objectness, and masks at positive places (FPN, arXiv 1612.03144, 6.1; DeepMask, equation 1).

    Args:
        mask_weight: of the masks' term over that of objectness.
    """

    task: ClassVar[str] = "proposal"

    def __init__(self, mask_weight: NonNegative) -> None:
        super().__init__()
        self.mask_weight = mask_weight

    def forward(
        self, outputs: ProposalOutputs, weights: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Terms by name; their sum is to be minimised; arguments as `DetectionLoss`'s."""
        places, pixels = divisors(self.weights(outputs), weights)
        return {
            "objectness": objectness_sum(outputs) / places,
            "mask": self.mask_weight * mask_sum(outputs) / pixels,
        }

    def weights(self, outputs: ProposalOutputs) -> dict[str, Tensor]:
        """How many places and mask cells the batch trains with."""
        names = {"places": "objectness", "pixels": "mask_logits"}
        return {name: count(outputs[key]) for name, key in names.items()}


def objectness_sum(outputs: DetectionOutputs | ProposalOutputs) -> Tensor:
    """Binary cross-entropy of the sampled anchors or places, summed."""
    return F.binary_cross_entropy_with_logits(
        outputs["objectness"], outputs["objectness_target"], reduction="sum"
    )


def mask_sum(outputs: DetectionOutputs | ProposalOutputs) -> Tensor:
    """Binary cross-entropy of every mask cell, summed."""
    return F.binary_cross_entropy_with_logits(
        outputs["mask_logits"], outputs["mask_target"], reduction="sum"
    )


def count(examples: Tensor) -> Tensor:
    """The number of elements, where they lie."""
    return torch.tensor(float(examples.numel()), device=examples.device)


def divisors(own: dict[str, Tensor], given: dict[str, Tensor] | None) -> Tensor:
    """The given numbers of examples, else the own ones averaged over processes, at least 1."""
    numbers = mean_over_processes(torch.stack(list(own.values()))) if given is None else (
        torch.stack([given[name] for name in own])
    )  # fmt: skip
    return numbers.clamp(min=1)
