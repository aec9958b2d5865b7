"""Tells Optuna's storage of each validation, and ends a training that its pruner gives up."""

import json
from pathlib import Path

import optuna
import pytorch_lightning as pl
from hydra.utils import instantiate
from pytorch_lightning.callbacks import Callback

from segtrain.errors import PRUNED, RunStopped
from segtrain.sweep.search import open_storage


class ReportTrial(Callback):
    """Reports the headline metric of every validation; asks the pruner before the last step only.

    Args:
        storage: SQLAlchemy URL of the study's storage.
        study: its name.
        trial: the trial's id in the storage.
        pruner: Hydra's node of the pruner; None for none.
        monitor: the metric's name.
    """

    def __init__(
        self, storage: str, study: str, trial: int, pruner: dict | None, monitor: str
    ) -> None:
        self.storage = storage
        self.study = study
        self.trial = trial
        self.pruner = instantiate(pruner) if pruner else optuna.pruners.NopPruner()
        self.monitor = monitor

    @classmethod
    def of_file(cls, file: Path, monitor: str) -> "ReportTrial":
        """Of the `trial.json` that the search wrote into the run folder."""
        return cls(**json.loads(file.read_text()), monitor=monitor)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        value = float(trainer.callback_metrics[self.monitor])
        ends = trainer.is_global_zero and self._report(value, trainer.global_step)
        ends = trainer.strategy.broadcast(ends)
        if ends and trainer.global_step < trainer.max_steps:
            raise RunStopped(
                f"pruned after step {trainer.global_step}: {self.monitor} "
                f"{100 * value:.2f}% is behind the other trials",
                exit_code=PRUNED,
            )

    def _report(self, value: float, step: int) -> bool:
        """Whether the pruner gives the trial up."""
        storage = open_storage(self.storage)
        storage.set_trial_intermediate_value(self.trial, step, value)
        study = optuna.load_study(study_name=self.study, storage=storage)
        return self.pruner.prune(study, storage.get_trial(self.trial))
