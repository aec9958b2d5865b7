"""Where the parts meet: a resolved configuration in, data, task and trainer out."""

import math
import re
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from pytorch_lightning.callbacks import (
    Callback,
    ModelCheckpoint,
    TQDMProgressBar,
    WeightAveraging,
)
from torch import nn

from segtrain.architecture.blocks import batch_norms
from segtrain.architecture.published import fetch_torchvision, from_published
from segtrain.architecture.weights import load_weights, read_state_dict
from segtrain.callback.checkpoint import AtomicCheckpointIO, LastCheckpoint
from segtrain.callback.final_validation import ValidateLastStep
from segtrain.callback.nonfinite import StopOnNonFiniteLoss
from segtrain.callback.progress import DataWait, Progress
from segtrain.contracts import LabelSet
from segtrain.dataset.counts import class_frequency, median_frequency_weights
from segtrain.dataset.datamodule import SegmentationData
from segtrain.dataset.transforms import SemanticPreset
from segtrain.errors import UserError
from segtrain.task.semantic import SemanticSegmentation


def make(node: dict, **call_time: Any) -> Any:
    """Builds the object that a configuration node names, with a message that names its key.

    Raises:
        UserError: an argument is unknown or missing, or the object refuses its settings; or
            nothing is named, as where an experiment sets values of a callback that is not chosen.
    """
    if "_target_" not in node:
        raise UserError(f"the settings {node} are for something that is not chosen; choose it in "
                        "its group (callback=[images,ema]) or leave them out")  # fmt: skip
    try:
        return instantiate(node, **call_time, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, TypeError | ValueError | ImportError | AttributeError):
            target = node.get("_target_")
            raise UserError(f"{target} cannot be built from its settings: {cause}") from error
        raise


def build_data(config: dict) -> SegmentationData:
    """The data module; reads no image yet."""
    return make(config["dataset"], batch_size=config["batch_size"], seed=config["seed"])


def require_semantic(data: SegmentationData) -> None:
    """Refuses to train a semantic network on instances.

    Raises:
        UserError: the data set's samples are instances.
    """
    if not isinstance(data.transform, SemanticPreset):
        raise UserError(
            f"dataset={data.name} has instances for labels; the architecture needs a semantic "
            "data set, such as cocostuff, cocovoc or cityscapes"
        )


def build_model(config: dict, num_classes: int) -> nn.Module:
    """The network with its initial weights."""
    model = make(config["architecture"], num_classes=num_classes)
    if config["weights"] is not None:
        load_initial_weights(model, config["weights"])
    if config["batch_norm"]["decay"] is not None:
        for norm in batch_norms(model):
            norm.momentum = 1 - config["batch_norm"]["decay"]
    if config["trainer"]["channels_last"]:
        model = model.to(memory_format=torch.channels_last)
    return model


def load_initial_weights(model: nn.Module, weights: str) -> None:
    """Starts from a whole model: a checkpoint of ours or a published one, by file or name.

    Classifiers for other classes than the file's are trained anew, which is logged.

    Raises:
        UserError: the weights do not fit, or `torchvision/<name>` cannot be fetched.
    """
    if weights.startswith("torchvision/"):
        state = fetch_torchvision(weights.removeprefix("torchvision/"))
    else:
        state = read_state_dict(weights)
    load_weights(model, from_published(state), weights, new_classes=True)


def build_task(config: dict, labels: LabelSet) -> SemanticSegmentation:
    """The LightningModule with network, loss, inference and optimiser recipe.

    Raises:
        UserError: the configuration does not fit together or does not fit the classes.
    """
    check_per_class("loss.pixel.class_weights", config["loss"]["pixel"], labels)
    check_per_class("inference.logit_adjustment", config["inference"], labels)
    return SemanticSegmentation(
        model=build_model(config, labels.num_classes),
        loss=make(config["loss"], ignore_index=labels.ignore_index),
        inference=make(config["inference"]),
        optimizer=make(config["optimizer"]),
        labels=labels,
        config=config,
        seed=config["seed"],
        compile_model=config["trainer"]["compile"],
        freeze_batch_norm=config["batch_norm"]["frozen"],
    )


def resolve_class_weights(config: dict, data: SegmentationData) -> None:
    """Puts numbers for the name of a rule, by the class frequencies of the training split.

    Raises:
        UserError: there is no such rule.
    """
    rule = config["loss"]["pixel"].get("class_weights")
    if not isinstance(rule, str):
        return
    powers = {"median_frequency": 1.0, "sqrt_median_frequency": 0.5}
    if rule not in powers:
        raise UserError(
            f"loss.pixel.class_weights={rule}: no such rule; expected one number a class, null or "
            f"one of {', '.join(powers)}"
        )
    name = f"{data.name}-{data.splits['train']}"
    frequency = class_frequency(data.train_source, name, data.num_workers)
    weights = median_frequency_weights(*frequency) ** powers[rule]
    config["loss"]["pixel"]["class_weights"] = [round(float(weight), 4) for weight in weights]


def check_per_class(key: str, node: dict, labels: LabelSet) -> None:
    """Refuses a list of one number a class that was made for other classes."""
    values = node.get(key.rpartition(".")[2])
    if values is not None and len(values) != labels.num_classes:
        raise UserError(
            f"{key} has {len(values)} entries for {labels.num_classes} classes "
            f"({', '.join(labels.names)}); give one a class, or null"
        )


def build_trainer(
    config: dict, data: SegmentationData, run_dir: Path
) -> tuple[pl.Trainer, Progress]:
    """Trainer of a training run, and the callback that measures its speed."""
    settings = config["trainer"]
    world_size = settings["devices"] * settings["num_nodes"]
    max_steps = training_steps(config, len(data.train_source), world_size)
    wait = DataWait()
    progress = Progress(config["batch_size"], wait, lines=not shows_bar(settings))
    trainer = pl.Trainer(
        **common_trainer_arguments(settings, run_dir),
        max_steps=max_steps,
        max_epochs=-1,
        accumulate_grad_batches=settings["accumulate_grad_batches"],
        gradient_clip_val=settings["gradient_clip_val"],
        val_check_interval=validation_interval(config, len(data.train_source), max_steps),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=min(settings["log_every_n_steps"], max_steps),
        sync_batchnorm=world_size > 1 and uses_gpu(settings),  # PyTorch has it for GPUs only
        enable_progress_bar=shows_bar(settings),
        logger=make(config["logger"], save_dir=run_dir),
        callbacks=build_callbacks(config, run_dir, progress),
        profiler=wait,
    )
    return trainer, progress


def common_trainer_arguments(settings: dict, run_dir: Path) -> dict[str, Any]:
    """What training and evaluation share: devices, precision, determinism."""
    distributed = settings["devices"] * settings["num_nodes"] > 1
    if uses_gpu(settings):
        torch.set_float32_matmul_precision("high")  # TF32 where autocast leaves float32
    return {
        "accelerator": settings["accelerator"],
        "devices": settings["devices"],
        "num_nodes": settings["num_nodes"],
        "strategy": "ddp" if distributed else "auto",
        "precision": resolve_precision(settings),
        "deterministic": settings["deterministic"],
        "benchmark": not settings["deterministic"],
        "use_distributed_sampler": False,  # the data module gives every process its share
        "enable_model_summary": False,
        "default_root_dir": run_dir,
        "plugins": [AtomicCheckpointIO()],
    }


def build_callbacks(config: dict, run_dir: Path, progress: Progress) -> list[Callback]:
    """Callbacks in the order in which their hooks must run.

    A loss is checked before anything is saved. Pictures are drawn before weight averaging puts the
    raw weights back. `last.ckpt` is written after the averages were updated.
    """
    chosen = [make(node) for node in config.get("callback", {}).values()]
    averaging = [callback for callback in chosen if isinstance(callback, WeightAveraging)]
    others = [callback for callback in chosen if callback not in averaging]
    folder = run_dir / "checkpoints"
    best = ModelCheckpoint(
        folder, "best", monitor="val/miou", mode="max", enable_version_counter=False
    )
    bar = [TQDMProgressBar()] if shows_bar(config["trainer"]) else []
    return [
        StopOnNonFiniteLoss(run_dir, every_n_steps=config["trainer"]["log_every_n_steps"]),
        progress,
        *others,
        *averaging,
        ValidateLastStep(),
        LastCheckpoint(folder / "last.ckpt", config["trainer"]["checkpoint_every_n_steps"]),
        *bar,
        best,
    ]


def shows_bar(settings: dict) -> bool:
    """Whether a progress bar is shown: where it is wanted and the output is a terminal."""
    return settings["progress_bar"] and sys.stdout.isatty()


def training_steps(config: dict, num_images: int, world_size: int) -> int:
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
    for key in ("max_steps", "max_epochs"):
        value = settings[key]
        if value is not None and (not isinstance(value, int | float) or value <= 0):
            raise UserError(f"trainer.{key}={value!r} must be a positive number")
    if settings["max_steps"] is not None:
        return int(settings["max_steps"])
    return math.ceil(settings["max_epochs"] * num_images / batch_size)


def validation_interval(config: dict, num_images: int, max_steps: int) -> int:
    """Batches between validations; one epoch's where `val_every_n_steps` is null."""
    steps = config["trainer"]["val_every_n_steps"]
    if steps is None:
        steps = math.ceil(num_images / config["batch_size"])
    return min(steps, max_steps) * config["trainer"]["accumulate_grad_batches"]


def resolve_precision(settings: dict) -> str:
    """`auto`: bfloat16 autocast where the hardware computes in it, float32 elsewhere."""
    if settings["precision"] != "auto":
        return str(settings["precision"])
    if uses_gpu(settings):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = _cpu_has_bfloat16()
    return "bf16-mixed" if native else "32-true"


def uses_gpu(settings: dict) -> bool:
    """Whether the trainer settings lead to a GPU on this machine."""
    return settings["accelerator"] != "cpu" and torch.cuda.is_available()


def _cpu_has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", flags) is not None
