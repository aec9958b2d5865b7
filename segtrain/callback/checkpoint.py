"""Checkpoints: `last.ckpt` for resuming, kept current, and written before a signal ends the run."""

import os
import signal
import threading
from pathlib import Path
from types import FrameType

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.io import TorchCheckpointIO

from segtrain.errors import RunStopped

PREEMPTION_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames, so that a crash or full disk leaves the old file.

    (Lightning's own temporary file may lie on another file system, where a rename is a copy.)
    """

    def save_checkpoint(
        self, checkpoint: dict, path: str | Path, storage_options: object = None
    ) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        try:
            with open(partial, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


class LastCheckpoint(Callback):
    """Keeps `last.ckpt` and answers pre-emption.

    Saves every `every_n_steps` optimiser steps and before each validation, so after the last step
    too. SIGTERM and SIGUSR1, on whichever process, let the running step end on all of them, save,
    and stop the run.

    Args:
        path: of the file.
        every_n_steps: optimiser steps between two saves.
    """

    def __init__(self, path: Path, every_n_steps: int) -> None:
        self.path = path
        self.every_n_steps = every_n_steps
        self._signal = 0
        self._old_handlers: dict[signal.Signals, object] = {}
        self._group: dist.ProcessGroup | None = None
        self._last_step = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last_step = trainer.global_step
        if trainer.world_size > 1:
            self._group = dist.new_group(backend="gloo")  # asks the host only, never the device
        if threading.current_thread() is threading.main_thread():
            for number in PREEMPTION_SIGNALS:
                self._old_handlers[number] = signal.signal(number, self._on_signal)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        if trainer.global_step == self._last_step:
            return  # in the middle of an accumulated step
        self._last_step = trainer.global_step
        received = self._received_anywhere()
        if received or trainer.global_step % self.every_n_steps == 0:
            trainer.save_checkpoint(self.path)
        if received:
            self._stop(received, trainer.global_step)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit":
            trainer.save_checkpoint(self.path)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        # Saved when the validation began. The other processes end with this one.
        if self._signal and trainer.state.fn == "fit":
            self._stop(self._signal, trainer.global_step)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._restore_handlers()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        self._old_handlers.clear()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signal = number

    def _received_anywhere(self) -> int:
        """The signal that any process got, 0 for none: the same answer at the same step on all."""
        if self._group is None:
            return self._signal
        received = torch.tensor(self._signal)
        dist.all_reduce(received, op=dist.ReduceOp.MAX, group=self._group)
        return int(received)

    def _stop(self, number: int, step: int) -> None:
        raise RunStopped(
            f"stopped by {signal.Signals(number).name} after step {step}; saved {self.path}. "
            f"Go on with: segtrain resume={self.path.parent.parent}",
            exit_code=128 + number,
        )
