"""Checkpoints: `last.ckpt` to resume from, `best.ckpt` by the validations; signals answered."""

import math
import os
import signal
import threading
from pathlib import Path
from shlex import quote
from types import FrameType

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from segtrain.callback.agreement import Agreement
from segtrain.errors import RunStopped
from segtrain.lifetime import PREEMPTION_SIGNALS
from segtrain.trained import best_score
from segtrain.writing import TorchFile, complete

INTERRUPTION = signal.SIGINT  # Ctrl-C
PATIENCE = 5.0  # seconds that a batch is waited for after a signal


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames, so that a crash or full disk leaves the old file.

    (Lightning's own temporary file may lie on another file system, where a rename is a copy.)
    """

    def save_checkpoint(
        self, checkpoint: dict, path: str | Path, storage_options: object = None
    ) -> None:
        with complete(Path(path)) as partial, open(partial, "wb") as file:
            with TorchFile(file) as writer:
                torch.save(checkpoint, writer)
            file.flush()
            os.fsync(file.fileno())


class Checkpoints(Checkpoint):
    """Keeps `last.ckpt` and `best.ckpt`, makes up for validations cut off, answers pre-emption.

    `last.ckpt` is saved every `every_n_steps` optimiser steps and before and after each validation,
    so after the last step too. It knows whether the validation due at its step has been done: a run
    resumed from it does that first, the one after the last step included. The score to beat is the
    one that `best.ckpt` holds itself, so whatever was killed when, a worse one never replaces it.
    SIGTERM, SIGUSR1 and Ctrl-C, on whichever process, let the running step end on all of them,
    save, and stop the run; a second Ctrl-C does not wait for that. Nor is a batch waited for that
    does not come: the steps before it are saved.

    Args:
        folder: of the files.
        monitor: name of the metric that chooses `best.ckpt`, the larger the better.
        every_n_steps: optimiser steps between two saves.
        val_every_n_steps: between two validations; there is one after the last step too.
        agreement: of the training processes.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str,
        every_n_steps: int,
        val_every_n_steps: int,
        agreement: Agreement,
    ) -> None:
        self.last = folder / "last.ckpt"
        self.best = folder / "best.ckpt"
        self.monitor = monitor
        self.every_n_steps = every_n_steps
        self.val_every_n_steps = val_every_n_steps
        self.agreement = agreement
        self.best_score: float | None = None
        self._validated = False  # whether the validation due at this step, if any, has been done
        self._stopped = False  # whether it asked for a stop before the last step
        self._resumed_at: int | None = None
        self._owes_validation = False
        self._max_steps = 0
        self._signal = 0
        self._old_handlers: dict[signal.Signals, object] = {}
        self._trainer: pl.Trainer | None = None

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict
    ) -> None:
        self._resumed_at = checkpoint["global_step"]
        stand_after(self._resumed_at, checkpoint["loops"]["fit_loop"])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._resumed_at is None:
            return
        self.best_score = self.agreement.gather(best_score(self.best))[0]
        trainer.should_stop = self._stopped
        step, self._max_steps = self._resumed_at, trainer.max_steps
        is_due = step % self.val_every_n_steps == 0 or step >= self._max_steps
        self._owes_validation = is_due and not self._validated
        if self._owes_validation:  # after the last step, Lightning would not start at all
            trainer.fit_loop.epoch_loop.max_steps = max(self._max_steps, step + 1)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._trainer = trainer
        if threading.current_thread() is threading.main_thread():
            for number in (*PREEMPTION_SIGNALS, INTERRUPTION):
                if signal.getsignal(number) != signal.SIG_IGN:  # as in the background of a shell
                    self._old_handlers[number] = signal.signal(number, self._on_signal)
            self._old_handlers[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._on_alarm)
        if self._owes_validation:  # as Lightning does it between two steps
            loop = trainer.fit_loop.epoch_loop
            loop.max_steps = self._max_steps
            trainer.validating, loop.val_loop.restarting = True, False
            loop.val_loop.run()
            trainer.training = True

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        self._validated = False
        if trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True  # makes Lightning validate, whatever the interval
        received = self.agreement.largest(self._signal)
        if received or trainer.global_step % self.every_n_steps == 0:
            trainer.save_checkpoint(self.last)
        if received:
            self._stop(received, trainer.global_step)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit":
            trainer.save_checkpoint(self.last)

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

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        self._validated = True
        self._stopped = trainer.should_stop and trainer.global_step < trainer.max_steps
        score = float(trainer.callback_metrics[self.monitor])
        score = -math.inf if math.isnan(score) else score
        is_worse = self.best_score is not None and score <= self.best_score
        if not self.agreement.largest(int(is_worse)):
            self.best_score = score
            trainer.save_checkpoint(self.best)
        trainer.save_checkpoint(self.last)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._restore_handlers()
        if self._signal and stage == "fit":  # after the last batch of the last validation
            self._stop(self._signal, trainer.global_step)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._restore_handlers()

    def state_dict(self) -> dict:
        return {
            "best_score": self.best_score,
            "validated": self._validated,
            "stopped": self._stopped,
        }

    def load_state_dict(self, state_dict: dict) -> None:
        self._validated = state_dict["validated"]
        self._stopped = state_dict["stopped"]

    def _restore_handlers(self) -> None:
        if self._old_handlers:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        self._old_handlers.clear()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # Several processes get the first one twice, from the terminal and from their launcher.
        if number == self._signal == INTERRUPTION and not self.agreement.is_shared:
            raise KeyboardInterrupt
        self._signal = number
        signal.setitimer(signal.ITIMER_REAL, PATIENCE, PATIENCE)

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        """Stops the run if the next batch still has not come. The other processes end with it."""
        trainer = self._trainer
        if not trainer.profiler.is_waiting:
            return
        step = trainer.global_step
        if step and not trainer.validating and not self.agreement.is_shared:
            trainer.save_checkpoint(self.last)
        self._stop(self._signal, step)

    def _stop(self, number: int, step: int) -> None:
        name, run_dir = signal.Signals(number).name, self.last.parent.parent
        saved = f"saved {self.last}. Go on with: segtrain {quote(f'resume={run_dir}')}"
        if not self.last.is_file():
            saved = "nothing was saved yet"
        raise RunStopped(f"stopped by {name} after step {step}; {saved}", exit_code=128 + number)


def stand_after(step: int, fit_loop: dict) -> None:
    """Lets the loops of a checkpoint stand at the end of a step, whatever they were at when saved.

    What Lightning makes of the place of a save within step and validation is not what is wanted: it
    takes a validation that was cut off for done.

    Args:
        step: optimiser steps done, which are as many batches.
        fit_loop: the state of Lightning's loops, which is changed.
    """
    done = {"ready": step, "started": step, "processed": step, "completed": step - 1}
    none = dict.fromkeys(done, 0)
    for loop, counts in (("epoch_loop", done), ("epoch_loop.val_loop", none)):
        fit_loop[f"{loop}.batch_progress"] = {
            "total": dict(counts), "current": dict(counts), "is_last_batch": False,
        }  # fmt: skip
    fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] = step - 1
