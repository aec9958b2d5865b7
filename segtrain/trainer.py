"""The Lightning trainer of a run: devices, precision, callbacks, number of steps."""

import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy

from segtrain.assembly import make
from segtrain.callback.agreement import Agreement
from segtrain.callback.bars import Bars
from segtrain.callback.batch_norm_statistics import BatchNormStatistics
from segtrain.callback.checkpoint import AtomicCheckpointIO, Checkpoints
from segtrain.callback.ema import EMA
from segtrain.callback.nonfinite import StopOnNonFinite
from segtrain.callback.progress import DataWait, Progress
from segtrain.configuration.schema import Computation, Recipe
from segtrain.dataset.datamodule import SegmentationData
from segtrain.errors import UserError
from segtrain.hardware import resolve_precision, uses_gpu
from segtrain.loggers import build_loggers
from segtrain.sweep.ledger import TRIAL
from segtrain.sync_batch_norm import SyncBatchNorm


def build_trainer(
    config: Recipe, data: SegmentationData, run_dir: Path, headline: str
) -> tuple[pl.Trainer, Progress]:
    """Trainer of a training run, and the callback that measures its speed.

    The metric called `headline` chooses the best checkpoint.
    """
    settings = config["trainer"]
    world_size = settings["devices"] * settings["num_nodes"]
    max_steps = training_steps(config, len(data.train_source), world_size)
    val_every_n_steps = validation_interval(config, len(data.train_source), max_steps)
    wait = DataWait()
    progress = Progress(config["batch_size"], wait)
    trainer = pl.Trainer(
        **common_trainer_arguments(settings, run_dir),
        # Crops have one size.
        benchmark=headline in ("miou", "pq") and not settings["deterministic"],
        max_steps=max_steps,
        max_epochs=-1,
        gradient_clip_val=settings["gradient_clip_val"],
        val_check_interval=val_every_n_steps,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=min(settings["log_every_n_steps"], max_steps),
        logger=build_loggers(config, run_dir),
        callbacks=build_callbacks(config, run_dir, progress, headline, val_every_n_steps),
        profiler=wait,
    )
    leave_signals(trainer)
    return trainer, progress


def common_trainer_arguments(settings: Computation, run_dir: Path) -> dict[str, Any]:
    """What training and evaluation share: devices, precision, determinism."""
    distributed = settings["devices"] * settings["num_nodes"] > 1
    # Otherwise the first step after a start groups the gradients in another order than the later
    # ones, and more than two processes then add them up in another order.
    strategy = DDPStrategy(find_unused_parameters=settings["deterministic"])
    plugins: list[object] = [AtomicCheckpointIO()]
    if not torch.distributed.is_torchelastic_launched():
        # A process of its own, whatever SLURM's or MPI's variables tell of the job around it.
        plugins.append(LightningEnvironment())
    if uses_gpu(settings):
        torch.set_float32_matmul_precision("high")  # TF32 where autocast leaves float32
        if distributed:
            plugins.append(SyncBatchNorm())
    return {
        "accelerator": settings["accelerator"],
        "devices": settings["devices"],
        "num_nodes": settings["num_nodes"],
        "strategy": strategy if distributed else "auto",
        "precision": resolve_precision(settings),
        "deterministic": settings["deterministic"],
        "use_distributed_sampler": False,  # the data module gives every process its share
        "enable_model_summary": False,
        "enable_progress_bar": False,  # `segtrain.callback.bars` are ours
        "default_root_dir": run_dir,
        "plugins": plugins,
    }


def leave_signals(trainer: pl.Trainer) -> None:
    """Ends Lightning's handling of SIGTERM, for which it has no switch.

    On several processes it broadcasts in every step whether a signal has come, and makes the host
    wait for the device's answer; and it broadcasts from within the handler, where a process that
    gets a signal alone waits for ever. `Checkpoints` asks the host, and answers signals while a
    training steps. Before and after that there is nothing to save, and they end the process.
    """
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
    trainer._signal_connector.register_signal_handlers = lambda: None


def build_callbacks(
    config: Recipe, run_dir: Path, progress: Progress, headline: str, val_every_n_steps: int
) -> list[Callback]:
    """Callbacks in the order in which their hooks must run.

    A loss is checked before anything is saved. Pictures are drawn before weight averaging puts the
    raw weights back. Batch-norm statistics are taken with the averages where there are some.
    Checkpoints are saved after all others had their say.
    """
    chosen = [
        make(node, monitor=f"val/{headline}") if node.get("monitor") == "headline" else make(node)
        for node in config.get("callback", {}).values()
    ]
    chosen.sort(key=lambda c: (isinstance(c, BatchNormStatistics), isinstance(c, EMA)))
    settings = config["trainer"]
    reports = []
    if (run_dir / TRIAL).is_file():  # one of a search; not imported otherwise, Optuna is an extra
        from segtrain.sweep.pruning import ReportTrial

        reports = [ReportTrial.of_file(run_dir / TRIAL, f"val/{headline}")]
    bars = Bars(progress, every_n_steps=20 if uses_gpu(settings) else 1)
    agreement = Agreement()
    checkpoints = Checkpoints(
        run_dir / "checkpoints",
        f"val/{headline}",
        settings["checkpoint_every_n_steps"],
        val_every_n_steps,
        agreement,
    )
    return [
        StopOnNonFinite(run_dir, settings["log_every_n_steps"], agreement),
        progress,
        *chosen,
        *([bars] if settings["progress_bar"] else []),
        *reports,
        checkpoints,
    ]


def training_steps(config: Recipe, num_images: int, world_size: int) -> int:
    """Optimiser steps of the run, from `max_steps` or `max_epochs`.

    Raises:
        UserError: not exactly one of the two is set, or the batch cannot be shared out evenly.
    """
    settings, batch_size = config["trainer"], config["batch_size"]
    parts = world_size * settings["accumulate_grad_batches"]
    if batch_size % parts:
        raise UserError(
            f"batch_size={batch_size} is the total of a step and cannot be shared out over "
            f"{world_size} processes x {settings['accumulate_grad_batches']} accumulated batches; "
            f"use a multiple of {parts}"
        )
    if (settings["max_steps"] is None) == (settings["max_epochs"] is None):
        raise UserError(
            f"give one of trainer.max_steps and trainer.max_epochs and set the other to null; got "
            f"{settings['max_steps']} and {settings['max_epochs']}"
        )
    if settings["max_steps"] is not None:
        return settings["max_steps"]
    return math.ceil(settings["max_epochs"] * num_images / batch_size)


def validation_interval(config: Recipe, num_images: int, max_steps: int) -> int:
    """Steps between validations; one epoch's where `val_every_n_steps` is null."""
    steps = config["trainer"]["val_every_n_steps"]
    if steps is None:
        steps = math.ceil(num_images / config["batch_size"])
    return min(steps, max_steps)
