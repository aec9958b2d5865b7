"""Exponential moving average of the weights."""

import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor


class EMA(WeightAveraging):
    """Averages weights and batch-norm statistics; validated, and saved as the best checkpoint.

    The decay rises with the number k of updates, min(decay, (1 + k) / (10 + k)), so that the first,
    random weights are forgotten at once.

    Args:
        decay: share of the old average that stays at each optimiser step, in the long run.
    """

    def __init__(self, decay: float) -> None:
        def average(old: Tensor, new: Tensor, updates: Tensor | int) -> Tensor:
            share = torch.as_tensor((1 + updates) / (10 + updates)).clamp(max=decay)
            if not old.is_floating_point():
                return new  # counters
            return torch.lerp(new, old, share.to(old))

        super().__init__(use_buffers=True, avg_fn=average)
