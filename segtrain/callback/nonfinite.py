"""Stops a run whose loss is not finite, before anything is saved over good weights."""

import json
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from segtrain.errors import RunStopped


class StopOnNonFiniteLoss(Callback):
    """Checks every step on a CPU; on a device every `every_n_steps`, so as not to wait for it.

    The check also runs before every checkpoint, so none ever holds weights after a bad step. The
    batches since the last check are named in `nonfinite_loss.json`.

    Args:
        folder: the run folder.
        every_n_steps: steps between checks on a device.
    """

    def __init__(self, folder: Path, every_n_steps: int) -> None:
        self.folder = folder
        self.every_n_steps = every_n_steps
        self._pending: list[tuple[int, list[str], Tensor]] = []

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: dict,
        batch: dict,
        batch_idx: int,
    ) -> None:
        loss = outputs["loss"].detach()
        self._pending.append((trainer.global_step, batch["name"], loss))
        if loss.device.type == "cpu" or len(self._pending) >= self.every_n_steps:
            self._check(trainer.global_rank)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict
    ) -> None:
        self._check(trainer.global_rank)

    def _check(self, rank: int) -> None:
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        finite = torch.stack([loss for _, _, loss in pending]).isfinite().tolist()
        if all(finite):
            return
        step, names, loss = pending[finite.index(False)]
        report = self.folder / f"nonfinite_loss{f'_rank{rank}' if rank else ''}.json"
        content = {"step": step, "loss": str(loss.item()), "rank": rank, "batch": names}
        report.write_text(json.dumps(content, indent=2) + "\n")
        raise RunStopped(
            f"the loss is {loss.item()} at step {step}; its {len(names)} images are named in "
            f"{report}. Nothing was saved after the last finite step. Usual causes: learning rate "
            "too high (optimizer.lr), no warm-up (optimizer.warmup_steps), or "
            "trainer.precision=16-mixed",
            exit_code=1,
        )
