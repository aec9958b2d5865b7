"""Callbacks that look into a running training; put into it with `+callback.probe._target_`."""

import json
import os
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from segtrain.callback.ema import EMA

SAID = "called a synchronizing"  # PyTorch, of each wait
WARM_UP = 4  # steps in which kernels are chosen and workers start


class Probe(Callback):
    """Writes what it found into a file of JSON at the end.

    Args:
        file: path.
    """

    def __init__(self, file: str) -> None:
        self.file = Path(file)
        self.found: dict = {}

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self.file.write_text(json.dumps(self.found))


class Waits(Probe):
    """Counts where training steps make the host wait for the device, in steps that log nothing.

    The hooks of other callbacks and the optimiser's step lie between its own two.
    """

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self.found = {"steps": 0, "waits": 0}
        self.where: Counter[str] = Counter()
        self.catcher: warnings.catch_warnings | None = None
        self.caught: list[warnings.WarningMessage] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        logs = (trainer.global_step + 1) % trainer.log_every_n_steps == 0
        if trainer.global_step < WARM_UP or logs or not torch.cuda.is_available():
            return
        self.catcher = warnings.catch_warnings(record=True)
        self.caught = self.catcher.__enter__()
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        if self.catcher is None:
            return
        torch.cuda.set_sync_debug_mode("default")
        self.catcher.__exit__(None, None, None)
        self.catcher = None
        waits = [w for w in self.caught if SAID in str(w.message)]
        self.where.update(f"{Path(w.filename).name}:{w.lineno}" for w in waits)
        self.found["steps"] += 1
        self.found["waits"] += len(waits)
        self.found["where"] = ", ".join(f"{name} x{n}" for name, n in self.where.most_common(6))

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("default")


class AverageDevice(Probe):
    """On which devices averaged weights lie, and the weights."""

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        averages = [tensor for callback in trainer.callbacks if isinstance(callback, EMA)
                    for tensor in callback.averages.values()]  # fmt: skip
        places = {str(tensor.device) for tensor in averages}
        self.found = {"tensors": len(averages), "device": ", ".join(sorted(places)),
                      "own": str(pl_module.device)}  # fmt: skip


class KernelChoice(Probe):
    """Whether cuDNN tries kernels for each new size, in training and in validation."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        self.found["in training"] = torch.backends.cudnn.benchmark

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.found["in validation"] = torch.backends.cudnn.benchmark


class Kill(Callback):
    """Ends its own process before optimiser step `step` + 1, once in a folder.

    Args:
        step: number of steps that are done then.
        mark: file that tells that it has struck.
    """

    def __init__(self, step: int, mark: str) -> None:
        self.step = step
        self.mark = Path(mark)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Milestones(Probe):
    """Minutes and mIoU of every validation.

    Attributes:
        tell: takes all that was found so far, at once.
    """

    tell: ClassVar[Callable[[dict], None]] = staticmethod(lambda found: None)

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self.found = {"validations": []}
        self.started = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        minutes = (time.perf_counter() - self.started) / 60
        miou = float(trainer.callback_metrics["val/miou"])
        self.found["validations"].append((minutes, miou))
        type(self).tell(self.found)


def read(file: Path) -> dict:
    """What a probe has found."""
    return json.loads(file.read_text())
