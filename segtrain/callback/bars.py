"""Bars of training, validation and test."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from segtrain.callback.progress import Progress
from segtrain.contracts import Source
from segtrain.headlines import TITLES
from segtrain.terminal import Bar


class Bars(Callback):
    """Shows steps with loss, last score and speed, and the images of validations and tests.

    Args:
        progress: measures the training; None where nothing is trained.
        every_n_steps: what the bar shows has to be asked of the device, which makes the host wait;
            so often it is.
    """

    def __init__(self, progress: Progress | None = None, every_n_steps: int = 1) -> None:
        self.progress = progress
        self.every_n_steps = every_n_steps
        self._training: Bar | None = None
        self._evaluating: Bar | None = None
        self._score = ""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        steps = Bar("training", trainer.max_steps, "images", trainer.global_step, has_lines=False)
        self._training = steps.open()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any
    ) -> None:
        bar, step = self._training, trainer.global_step
        if step % self.every_n_steps == 0 or step >= trainer.max_steps:
            loss = trainer.callback_metrics.get("train/loss")
            shown = [] if loss is None else [f"loss {float(loss):.3f}"]
            bar.note = "  ".join([*shown, *filter(None, [self._score])])
            bar.speed = self.progress.images_per_second
            bar.update(step)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._close()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._evaluate("validating", trainer.datamodule.val_source)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *n: int
    ) -> None:
        self._count(batch, trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._evaluating.close()
        headline = pl_module.evaluation.headline
        score = trainer.callback_metrics.get(f"val/{headline}")
        if score is not None:
            self._score = f"{TITLES[headline]} {100 * float(score):.2f}%"

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._evaluate("evaluating", trainer.datamodule.test_source)

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *n: int
    ) -> None:
        self._count(batch, trainer)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def _evaluate(self, what: str, source: Source) -> None:
        self._evaluating = Bar(what, len(source), "images").open()

    def _count(self, batch: dict, trainer: pl.Trainer) -> None:
        bar = self._evaluating
        done = bar.done + len(batch["image"]) * trainer.world_size
        bar.update(min(done, bar.total))

    def _close(self) -> None:
        for bar in (self._training, self._evaluating):
            if bar is not None:
                bar.close()
