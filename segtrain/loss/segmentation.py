"""The loss of a semantic network: a pixel loss on every head's scores, weighted and summed."""

from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.contracts import Outputs


class SegmentationLoss(nn.Module):
    """Main and auxiliary term, each a mean over the valid pixels of all processes.

    Scores are resized bilinearly (float32) to the labels, never the labels to the scores.

    Args:
        pixel: (ignore_index) -> pixel loss that returns (sum, weight).
        aux_weight: factor of the auxiliary term.
        ignore_index: void.
    """

    def __init__(
        self, pixel: Callable[..., nn.Module], aux_weight: float, ignore_index: int
    ) -> None:
        super().__init__()
        self.pixel = pixel(ignore_index=ignore_index)
        self.aux_weight = aux_weight

    def forward(self, outputs: Outputs, target: Tensor) -> dict[str, Tensor]:
        """Outputs and target (N, H, W) -> weighted terms by name; their sum is to be minimised."""
        with torch.autocast(target.device.type, enabled=False):
            terms = {"main": self._term(outputs["logits"], target)}
            if "aux" in outputs:
                terms["aux"] = self.aux_weight * self._term(outputs["aux"], target)
        return terms

    def _term(self, logits: Tensor, target: Tensor) -> Tensor:
        resized = F.interpolate(logits.float(), target.shape[-2:], mode="bilinear")
        total, weight = self.pixel(resized, target)
        return total / mean_over_processes(weight).clamp(min=1e-6)


def mean_over_processes(weight: Tensor) -> Tensor:
    """The weight averaged over processes.

    Data-parallel training averages gradients over processes. Dividing each process's sum by the
    mean weight therefore gives sum / weight of the whole batch, however unevenly void pixels lie.
    """
    weight = weight.detach().float()
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(weight)
        weight = weight / dist.get_world_size()
    return weight
