"""Training as it is: images/s, where the time goes, and what share of the hardware is used."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.profilers import Profiler
from torch import nn
from torch._dynamo.utils import counters
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.flop_counter import FlopCounterMode

from segtrain.assembly import build_data, build_task, make, resolve_class_weights
from segtrain.benchmark.timing import peak_memory, synchronise
from segtrain.hardware import uses_gpu
from segtrain.label_set import LabelSet
from segtrain.plan.speed import (
    STILL,
    device_name,
    picture_size,
    random_batch,
)
from segtrain.task.segmentation import Segmentation
from segtrain.trained import without_pretraining
from segtrain.trainer import common_trainer_arguments, leave_signals
from segtrain.values import Count, Natural

logger = logging.getLogger("segtrain")

PRODUCT_SIDE = {"cpu": 2048, "cuda": 8192}  # of the square matrices that are multiplied
COUNTED = 2  # images whose operations are counted
WHOLE = "whole step"


def training_speed(config: dict, steps: Count, warm_up: Natural, random_data: bool) -> list[dict]:
    """One row: images/s of the run that `config` describes, and where the time of a step goes.

    The run is Lightning's loop with the data set's loader, the network untrained, without
    validations, checkpoints and logs. After the warm-up it runs freely, which gives images/s; then
    again with the device waited for at the end of each part, which tells the parts' times and takes
    longer on a GPU. With several processes images/s are those of all.

    Args:
        config: the resolved configuration of a training.
        steps: measured freely, and again part by part.
        warm_up: steps before, in which kernels are chosen or compiled.
        random_data: one random batch over and over, where the data set is not at hand.
    """
    data = build_data(config)
    if random_data:
        config["loss"].get("pixel", {})["class_weights"] = None
    else:
        resolve_class_weights(config, data)
    task = build_task(untrained(config), data.labels)
    device = torch.device("cuda" if uses_gpu(config["trainer"]) else "cpu")
    operations = count_operations(task, config, data.labels, device)
    if config["trainer"]["compile"]:
        counters.clear()
        task.compile_network()
    parts = PartTimes(task.loss)
    clock = Clock(parts, warm_up, steps)
    trainer = build_loop(config, clock, parts, warm_up + 2 * steps)
    if random_data:
        count = config["batch_size"] // trainer.world_size
        batch = batch_of(config, data.labels, count)
        loader = DataLoader(Repeated(batch), batch_size=None, pin_memory=device.type == "cuda")
        trainer.fit(task, loader)
    else:
        trainer.fit(task, data)
    seconds = clock.seconds / steps
    peak = product_speed(trainer.precision, device)
    reached = operations * config["batch_size"] / trainer.world_size / seconds
    return [
        {
            "network": type(task.model).__name__,
            "batch": f"{config['batch_size']} x {'x'.join(map(str, picture_size(config)))}",
            "data": "random" if random_data else f"{data.name}, {data.num_workers} workers",
            "device": f"{trainer.world_size} x {device_name(config['trainer'])}",
            "precision": str(trainer.precision),
            "compiled": graph_breaks() if config["trainer"]["compile"] else "no",
            "images/s": config["batch_size"] / seconds,
            "step ms": 1e3 * seconds,
            **parts.row(),
            "peak memory MB": peak_memory(device.type == "cuda") / 2**20,
            "GFLOPs an image": operations / 1e9,
            "TFLOP/s of a process": reached / 1e12,
            "TFLOP/s of a matrix product": peak / 1e12,
            "fraction of it": reached / peak,
        }
    ]


def untrained(config: dict) -> dict:
    """The same training without any weights to load, of steps so small that nothing diverges."""
    return config | {
        "architecture": without_pretraining(config["architecture"]),
        "weights": None,
        "optimizer": config["optimizer"] | {"lr": STILL},
        "trainer": config["trainer"] | {"compile": False},
    }


def build_loop(config: dict, clock: "Clock", parts: "PartTimes", steps: int) -> pl.Trainer:
    """The trainer of a run, but for what it does beside training."""
    settings = config["trainer"]
    chosen = [make(node) for name, node in config["callback"].items() if name == "ema"]
    trainer = pl.Trainer(
        **common_trainer_arguments(settings, Path()),
        benchmark="crop_size" in config["dataset"]["transform"] and not settings["deterministic"],
        max_steps=steps,
        gradient_clip_val=settings["gradient_clip_val"],
        limit_val_batches=0,
        enable_checkpointing=False,
        logger=False,
        callbacks=[*chosen, clock],
        profiler=parts,
    )
    leave_signals(trainer)
    return trainer


def count_operations(
    task: Segmentation, config: dict, labels: LabelSet, device: torch.device
) -> float:
    """Floating-point operations of forward, loss and backward for one image.

    Those of matrix products and convolutions, a multiply-add counts two, as PyTorch counts them.
    """
    task.to(device).train()
    batch = batch_of(config, labels, COUNTED)
    batch = {key: moved(value, device) for key, value in batch.items()}
    with FlopCounterMode(display=False) as counter:
        sum(task.evaluation.terms(task.model, task.loss, batch).values()).backward()
    task.zero_grad()
    return counter.get_total_flops() / COUNTED


def batch_of(config: dict, labels: LabelSet, count: int) -> dict:
    """Random images on the host with labels of the data set's kind."""
    shape = (count, *picture_size(config))
    batch = random_batch(config, labels, shape, torch.device("cpu"))
    return {**batch, "name": ["random"] * count}


def moved(value: Any, device: torch.device) -> Any:
    """Tensors of a list, or of a list of dictionaries, on the device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, list):
        return [moved(entry, device) for entry in value]
    return {k: moved(v, device) for k, v in value.items()} if isinstance(value, dict) else value


def graph_breaks() -> str:
    """How often the compiler gave up a graph, and why."""
    found = counters["graph_break"]
    for reason, count in found.items():
        logger.info("graph break %d x %s", count, reason.partition("\n")[0])
    return f"yes, {sum(found.values())} graph breaks"


def product_speed(precision: str, device: torch.device) -> float:
    """Floating-point operations a second of a large matrix product in the training's precision."""
    side = PRODUCT_SIDE[device.type]
    kind = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision, torch.float32)
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    seconds = []
    for _ in range(6):
        synchronise()
        started = time.perf_counter()
        a @ b
        synchronise()
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / median(seconds[1:])


class Repeated(IterableDataset):
    """One batch, without end."""

    def __init__(self, batch: dict) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[dict]:
        while True:
            yield self.batch


class PartTimes(Profiler):
    """Seconds of the parts of training steps, the device waited for at the end of each.

    Args:
        loss: whose time is told apart from that of the network.
    """

    ACTIONS = {
        "train_dataloader_next": "data wait",
        "batch_to_device": "copy",
        "training_step": "training step",
        "backward": "backward",
        "optimizer_step": "optimizer step",
    }

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.is_on = False
        self.steps = 0
        self.seconds = dict.fromkeys([*self.ACTIONS.values(), "loss", WHOLE], 0.0)
        self.started: dict[str, float] = {}
        loss.register_forward_pre_hook(lambda *_: self.start("loss"))
        loss.register_forward_hook(lambda *_: self.stop("loss"))

    def start(self, action_name: str) -> None:
        if self.is_on and (part := self._part(action_name)):
            synchronise()
            self.started[part] = time.perf_counter()

    def stop(self, action_name: str) -> None:
        part = self._part(action_name)
        if self.is_on and part in self.started:
            synchronise()
            self.seconds[part] += time.perf_counter() - self.started.pop(part)

    def _part(self, action: str) -> str | None:
        name = action.rpartition(".")[2]
        return name if name in self.seconds else self.ACTIONS.get(name)

    def row(self) -> dict[str, float]:
        """Milliseconds a step of each part."""
        ms = {part: 1e3 * seconds / self.steps for part, seconds in self.seconds.items()}
        forward = ms["training step"] - ms["loss"]
        optimiser = ms["optimizer step"] - ms["training step"] - ms["backward"]
        parts = {
            "data wait ms": ms["data wait"],
            "copy ms": ms["copy"],
            "forward ms": forward,
            "loss ms": ms["loss"],
            "backward ms": ms["backward"],
            "optimiser ms": optimiser,
        }
        return {**parts, "rest ms": ms[WHOLE] - sum(parts.values())}


class Clock(Callback):
    """Times a number of steps that run freely, then lets as many be timed part by part."""

    def __init__(self, parts: PartTimes, warm_up: int, steps: int) -> None:
        self.parts = parts
        self.free = warm_up, warm_up + steps
        self.steps = steps
        self.seconds = 0.0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        done = batch_idx + 1
        if done == self.free[0]:
            synchronise()
            self.seconds = time.perf_counter()
        elif done == self.free[1]:
            synchronise()
            now = time.perf_counter()
            self.seconds = now - self.seconds
            self.parts.is_on, self.parts.steps = True, self.steps
            self.parts.start(WHOLE)
        elif done == self.free[1] + self.steps:
            self.parts.stop(WHOLE)
            self.parts.is_on = False
