"""Speed, data wait, learning rates and the progress lines of a run."""

import logging
import time

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.profilers import Profiler

from segtrain.callback.system import SystemFigures
from segtrain.headlines import TITLES
from segtrain.terminal import lines

logger = logging.getLogger("segtrain")

WAIT_LIMIT = 0.2  # of the step; above it the loader is the bottleneck


class DataWait(Profiler):
    """Seconds that the training loop spent waiting for the next batch.

    Attributes:
        seconds: in training; validations are left out.
        is_waiting: whether training or a validation waits now.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.is_waiting = False
        self._started = 0.0

    def start(self, action_name: str) -> None:
        if action_name.endswith("_next"):
            self.is_waiting = True
        if action_name.endswith("train_dataloader_next"):
            self._started = time.perf_counter()

    def stop(self, action_name: str) -> None:
        if action_name.endswith("_next"):
            self.is_waiting = False
        if action_name.endswith("train_dataloader_next"):
            self.seconds += time.perf_counter() - self._started


class Progress(Callback):
    """Measures training without its validations; logs and prints every `log_every_n_steps`.

    Args:
        batch_size: images per optimiser step over all processes.
        wait: measures the data wait.

    Attributes:
        train_seconds: wall time of training steps, data wait included, validation left out; goes on
            counting in a resumed run.
        steps: optimiser steps in that time.
        validations: `step`, `seconds` of training until then and `score`, 0..1, of each validation.
    """

    def __init__(self, batch_size: int, wait: DataWait) -> None:
        self.batch_size = batch_size
        self.wait = wait
        self.train_seconds = 0.0
        self.steps = 0
        self.validations: list[dict[str, float]] = []
        self._figures = SystemFigures()
        self._resumed_at = 0.0
        self._window = (0, 0.0, 0.0)  # steps, seconds, wait at the last log step
        self._first_step = 0  # the first window holds worker start-up and compilation
        self._warned = False

    @property
    def images_per_second(self) -> float:
        return self.steps * self.batch_size / max(self.train_seconds, 1e-9)

    @property
    def wait_fraction(self) -> float:
        return min(1.0, self.wait.seconds / max(self.train_seconds, 1e-9))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._resumed_at = time.perf_counter()
        self.steps = self._first_step = trainer.global_step
        self._window = (self.steps, self.train_seconds, self.wait.seconds)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._count_time()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._resumed_at = time.perf_counter()
        if trainer.state.fn == "fit":
            headline = pl_module.evaluation.headline
            score = float(trainer.callback_metrics[f"val/{headline}"])
            self.validations.append(
                {"step": trainer.global_step, "seconds": self.train_seconds, "score": score}
            )
            best = trainer.checkpoint_callback.best_score  # without this one, which comes after
            is_best = best is None or score > best
            told = "the best so far" if is_best else f"the best so far {100 * best:.2f}%"
            logger.info("step %d/%d  val %s %.2f%%, %s", trainer.global_step, trainer.max_steps,
                        TITLES[headline], 100 * score, told)  # fmt: skip

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._count_time()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        self._count_time()
        self.steps = trainer.global_step
        if trainer.global_step % trainer.log_every_n_steps == 0:
            self._log(trainer, pl_module)

    def state_dict(self) -> dict:
        return {
            "train_seconds": self.train_seconds,
            "wait_seconds": self.wait.seconds,
            "steps": self.steps,
            "validations": list(self.validations),
        }

    def load_state_dict(self, state_dict: dict) -> None:
        self.train_seconds = state_dict["train_seconds"]
        self.steps = state_dict["steps"]
        self.wait.seconds = state_dict["wait_seconds"]
        self.validations = list(state_dict.get("validations", ()))  # older checkpoints have none

    def _count_time(self) -> None:
        now = time.perf_counter()
        self.train_seconds += now - self._resumed_at
        self._resumed_at = now

    def _log(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        steps, seconds, waited = self._window
        self._window = (self.steps, self.train_seconds, self.wait.seconds)
        elapsed = max(self.train_seconds - seconds, 1e-9)
        speed = (self.steps - steps) * self.batch_size / elapsed
        wait_fraction = min(1.0, (self.wait.seconds - waited) / elapsed)
        rates = {f"lr/{group['name']}": group["lr"] for group in trainer.optimizers[0].param_groups}
        pl_module.log_dict({**rates, "images_per_second": speed,
                            "data_wait_fraction": wait_fraction,
                            **self._figures.read(pl_module.device)})  # fmt: skip
        lines.info(
            "step %d/%d  loss %.4f  lr %.2e  %.1f images/s  data wait %.0f%%",
            trainer.global_step,
            trainer.max_steps,
            trainer.callback_metrics["train/loss"],
            max(rates.values()),
            speed,
            100 * wait_fraction,
        )
        if wait_fraction > WAIT_LIMIT and steps > self._first_step and not self._warned:
            self._warned = True
            workers = trainer.datamodule.num_workers
            logger.warning(
                "%.0f%% of the training time is spent waiting for data with %d loader workers; "
                "try dataset.num_workers=%d",
                100 * wait_fraction,
                workers,
                2 * max(1, workers),
            )
