"""Validation after the last step, whatever the interval."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class ValidateLastStep(Callback):
    """Asks for a stop at the last step, which makes Lightning validate before it ends."""

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        if trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True
