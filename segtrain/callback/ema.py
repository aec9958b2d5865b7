"""Exponential moving average of the weights."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from segtrain.values import Fraction

RAW = "current_model_state"  # of a checkpoint, whose `state_dict` holds the averages


class EMA(Callback):
    """Averages weights and batch-norm statistics; validated, and saved as the best checkpoint.

    The decay rises with the number k of updates, min(decay, (1 + k) / (10 + k)), so that the first,
    random weights are forgotten at once.

    The averages lie beside the weights and are updated by one call for all of them, which asks the
    device for nothing. Checkpoints hold them as `state_dict` and the weights of the training as
    `current_model_state`.

    Args:
        decay: share of the old average that stays at each optimiser step, in the long run.
    """

    def __init__(self, decay: Fraction) -> None:
        self.decay = decay
        self.updates = 0
        self.averages: dict[str, Tensor] | None = None  # by the names of the network's state
        self._weights: dict[str, Tensor] = {}  # of the training, in the same order

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict
    ) -> None:
        if RAW not in checkpoint:
            return  # of a run without averages, which start from its weights
        names = pl_module.model.state_dict()
        self.averages = {name: checkpoint["state_dict"][f"model.{name}"].clone() for name in names}
        pl_module.load_state_dict(checkpoint[RAW])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Places the averages where the weights are by now."""
        self._weights = pl_module.model.state_dict()
        loaded = self.averages or self._weights
        self.averages = {
            name: torch.empty_like(weight).copy_(loaded[name])
            for name, weight in self._weights.items()
        }

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        update(self._pairs(), share_of_old(self.updates, self.decay))
        self.updates += 1

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._swap()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._swap()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        update(self._pairs()[::-1], 0.0)

    def state_dict(self) -> dict:
        return {"updates": self.updates}

    def load_state_dict(self, state_dict: dict) -> None:
        self.updates = state_dict["updates"]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict
    ) -> None:
        averages = {f"model.{name}": average for name, average in self.averages.items()}
        checkpoint[RAW] = checkpoint["state_dict"]
        checkpoint["state_dict"] = checkpoint["state_dict"] | averages

    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        """Averages and weights, in one order."""
        return list(self.averages.values()), list(self._weights.values())

    def _swap(self) -> None:
        """Puts the averages into the network and keeps the weights of the training, or back."""
        averages, weights = self._pairs()
        kept = [average.clone() for average in averages]
        update((averages, weights), 0.0)
        update((weights, kept), 0.0)


def share_of_old(updates: int, decay: float) -> float:
    """How much of an average stays at an update, after so many others; at the first, nothing."""
    return min(decay, (1 + updates) / (10 + updates)) if updates else 0.0


@torch.no_grad()
def update(pairs: tuple[list[Tensor], list[Tensor]], share: float) -> None:
    """Moves the first tensors of the pairs towards the second ones; counters are copied.

    Args:
        pairs: tensors of the same shapes.
        share: of their old values that stays, 0 for none.
    """
    old, new = pairs
    floating = [tensor.is_floating_point() for tensor in old]
    averaged = [[t for t, is_float in zip(side, floating, strict=True) if is_float]
                for side in (old, new)]  # fmt: skip
    counters = [[t for t, is_float in zip(side, floating, strict=True) if not is_float]
                for side in (old, new)]  # fmt: skip
    if share:
        torch._foreach_lerp_(*averaged, 1 - share)
    else:
        torch._foreach_copy_(*averaged)
    if counters[0]:
        torch._foreach_copy_(*counters)
