"""Parameters, FLOPs, latency, training speed and memory of a network."""

import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from segtrain.assembly import build_data, build_loss, build_model, make
from segtrain.benchmark.timing import alternate, peak_memory
from segtrain.errors import UserError
from segtrain.hardware import resolve_precision, uses_gpu
from segtrain.label_set import LabelSet
from segtrain.plan.speed import random_batch
from segtrain.values import Count, Size


def model_speed(config: dict, size: Size | None, rounds: Count) -> list[dict]:
    """One row for `config["architecture"]` at batch size 1 (inference) and `batch_size` (training).

    Args:
        config: the resolved configuration; class count from its data set.
        size: (height, width); null for the data set's crop size.
        rounds: timed calls, after one warm-up.

    Raises:
        UserError: the network finds instances.
    """
    if "crop_size" not in config["dataset"]["transform"]:
        raise UserError(
            "measure=model is for semantic networks; use measure=detector, or "
            "measure=training experiment=mask_rcnn_shapes measure.random_data=true"
        )
    data = build_data(config)
    height, width = size or config["dataset"]["transform"]["crop_size"]
    settings = config["trainer"]
    use_gpu = uses_gpu(settings)
    device = torch.device("cuda" if use_gpu else "cpu")
    precision = resolve_precision(settings)
    model = build_model(config, data.labels.num_classes).to(device)
    if settings["compile"]:
        model.compile()
    batch = torch.randint(0, 256, (config["batch_size"], 3, height, width), dtype=torch.uint8)
    batch = batch.to(device).contiguous(memory_format=torch.channels_last)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
    with autocast:
        infer = _inference_call(model, batch[:1])
        latency = statistics.median(alternate({"inference": infer}, rounds)["inference"])
        step = _training_call(config, data.labels, model, batch)
        seconds = statistics.median(alternate({"step": step}, rounds)["step"])
    return [
        {
            "architecture": type(model).__name__,
            "backbone": model.backbone.name,
            "input": f"{height}x{width}",
            "device": torch.cuda.get_device_name() if use_gpu else "cpu",
            "precision": precision,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "GFLOPs": count_flops(model, batch[:1]) / 1e9,
            "inference ms": 1e3 * latency,
            "training images/s": len(batch) / seconds,
            "peak memory MB": peak_memory(use_gpu) / 2**20,
        }
    ]


def count_flops(model: nn.Module, image: Tensor) -> int:
    """Floating-point operations of one forward pass in evaluation; a multiply-add counts two."""
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops()


def _inference_call(model: nn.Module, image: Tensor) -> Callable[[], None]:
    def call() -> None:
        model.eval()
        with torch.no_grad():
            model(image)

    return call


def _training_call(
    config: dict, labels: LabelSet, model: nn.Module, batch: Tensor
) -> Callable[[], None]:
    loss = build_loss(config["loss"], labels).to(batch.device)
    optimizer, _ = make(config["optimizer"])(model, max_steps=1000)
    shape = (len(batch), *batch.shape[2:])
    target = random_batch(config, labels, shape, batch.device)["mask"]

    def call() -> None:
        model.train()
        sum(loss(model(batch), target).values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return call
