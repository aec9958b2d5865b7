"""Stops a run whose loss or weights are not finite, before anything is saved over good weights."""

from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from segtrain.callback.agreement import Agreement
from segtrain.errors import RunStopped
from segtrain.writing import write_json

SAVED = ("state_dict", "optimizer_states")  # what a checkpoint holds of the training


class StopOnNonFinite(Callback):
    """Checks the loss of every step on a CPU; on a device every `every_n_steps`: it waits for it.

    Before every checkpoint the loss is checked as well, and so are the weights and the optimiser's
    state, since a gradient can overflow where the loss does not. What one process finds stops all
    of them at the same step. It names the images since its last check in `nonfinite_loss.json`.

    Args:
        folder: the run folder.
        every_n_steps: steps between checks on a device.
        agreement: of the training processes.
    """

    def __init__(self, folder: Path, every_n_steps: int, agreement: Agreement) -> None:
        self.folder = folder
        self.every_n_steps = every_n_steps
        self.agreement = agreement
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
            self._check(trainer, [])

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict
    ) -> None:
        self._check(trainer, [t for key in SAVED for t in floats_of(checkpoint[key])])

    def _check(self, trainer: pl.Trainer, tensors: list[Tensor]) -> None:
        """Raises on all processes if one has a loss, or tensors to save, that are not finite."""
        pending, self._pending = self._pending, []
        found = describe(pending, tensors, trainer.global_step)
        if not self.agreement.largest(int(found is not None)):
            return
        rank = trainer.global_rank
        report = self.folder / f"nonfinite_loss{f'_rank{rank}' if rank else ''}.json"
        if found is not None:
            content = {**found, "rank": rank}
            write_json(report, content)
            found = {**content, "report": str(report)}
        first = next(entry for entry in self.agreement.gather(found) if entry is not None)
        where = f" on process {first['rank']}" if trainer.world_size > 1 else ""
        what = (
            "the weights or the optimiser's state are not finite"
            if first["loss"] is None
            else f"the loss is {first['loss']}"
        )
        raise RunStopped(
            f"{what} at step {first['step']}{where}; its {len(first['batch'])} images are named in "
            f"{first['report']}. Nothing was saved after the last finite step. Usual causes: "
            "learning rate too high (optimizer.lr), no warm-up (optimizer.warmup_steps), or "
            "trainer.precision=16-mixed",
            exit_code=1,
        )


def describe(
    pending: list[tuple[int, list[str], Tensor]], tensors: list[Tensor], step: int
) -> dict | None:
    """The first step whose loss is not finite, or the last one if the tensors are not; else None.

    Args:
        pending: step, image names and loss of the steps since the last check.
        tensors: what is to be saved; asks their devices once.
        step: the one that they belong to.
    """
    finite = torch.stack([loss for _, _, loss in pending]).isfinite().tolist() if pending else []
    if not all(finite):
        step, names, loss = pending[finite.index(False)]
        return {"step": step, "loss": str(loss.item()), "batch": names}
    if tensors and not torch.stack(torch._foreach_norm(tensors, float("inf"))).isfinite().all():
        return {"step": step, "loss": None, "batch": [n for _, names, _ in pending for n in names]}
    return None


def floats_of(node: object) -> list[Tensor]:
    """Every tensor of floating-point numbers inside lists and dictionaries, none of them empty."""
    if isinstance(node, Tensor):
        return [node] if node.is_floating_point() and node.numel() else []
    if isinstance(node, dict):
        node = list(node.values())
    return [t for part in node for t in floats_of(part)] if isinstance(node, list | tuple) else []
