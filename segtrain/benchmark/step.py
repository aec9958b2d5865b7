"""A training step of a network here, against the same network of a public library."""

import multiprocessing
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from statistics import median
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD

from segtrain.assembly import build_data, build_model, make
from segtrain.benchmark.peers import PEERS
from segtrain.benchmark.timing import alternate, median_ratio, peak_memory, synchronise
from segtrain.configuration.schema import Recipe
from segtrain.errors import UserError
from segtrain.hardware import resolve_precision, uses_gpu
from segtrain.values import Count, Size

PRECISIONS = {
    "32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16,
}  # fmt: skip


def training_step(
    config: Recipe,
    size: Size | None,
    rounds: Count,
    peer_precision: Literal["32-true", "bf16-mixed", "16-mixed"] | None,
) -> list[dict]:
    """Two rows: forward, loss at full resolution, backward and optimiser, here and in the peer.

    Each side lives in a process of its own, so that its peak memory is its own; they take turns,
    step by step, so that what else the machine does hits both alike. The peer computes as its users
    do: default memory format, `F.interpolate`, `F.cross_entropy`, `torch.optim.SGD`.

    Args:
        config: the resolved configuration; its architecture must have a peer.
        size: (height, width) of the batch; null for the data set's crop size.
        rounds: timed steps, after one that is not.
        peer_precision: of the peer: 32-true, bf16-mixed, or 16-mixed with a gradient scaler, as
            torchvision's references with --amp; null: that of `trainer.precision`.

    Raises:
        UserError: no public library has this network, or only with other settings; or a side
            failed.
    """
    name = config["architecture"]["_target_"].rpartition(".")[2]
    if name not in PEERS:
        raise UserError(f"measure=step: {name} has no peer; these have: {', '.join(PEERS)}")
    height, width = size or config["dataset"]["transform"]["crop_size"]
    library = PEERS[name].library
    precisions = {"segtrain": resolve_precision(config["trainer"])}
    precisions[library] = peer_precision or precisions["segtrain"]
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for side, worker in (("segtrain", our_side), (library, peer_side)):
        pipes[side], end = context.Pipe()
        arguments = (end, config, (height, width), precisions[side])
        context.Process(target=worker, args=arguments, daemon=True).start()
        end.close()
    calls = {side: partial(ask, pipe, "step", side) for side, pipe in pipes.items()}
    counts = [ask(pipe, "parameters", side) for side, pipe in pipes.items()]
    if abs(counts[0] / counts[1] - 1) > 1e-3:  # smp's first pyramid level has no batch norm
        raise UserError(
            f"measure=step: not the same network: {counts[0]:,} parameters here, {counts[1]:,} in "
            f"{library}; {PEERS[name].same}"
        )
    seconds = alternate(calls, rounds)
    memory = {side: ask(pipe, "memory", side) for side, pipe in pipes.items()}
    for pipe in pipes.values():
        pipe.close()
    return [
        {
            "side": side,
            "batch": f"{config['batch_size']}x{height}x{width}",
            "precision": precisions[side],
            "images/s": config["batch_size"] / median(seconds[side]),
            "step ms": 1e3 * median(seconds[side]),
            "peak memory MB": memory[side] / 2**20,
            "time ratio": median_ratio(seconds[side], seconds[library]),
            "memory ratio": memory[side] / memory[library],
        }
        for side in pipes
    ]


def ask(pipe: Connection, what: str, side: str) -> int:
    """A side's answer to `step` (0, when it is done), `memory` (bytes) or `parameters`."""
    pipe.send(what)
    try:
        answer = pipe.recv()
    except EOFError:
        raise UserError(f"measure=step: {side} ended, as for lack of memory") from None
    if isinstance(answer, str):
        raise UserError(f"measure=step: {side}: {answer}")
    return answer


def our_side(pipe: Connection, config: Recipe, size: tuple[int, int], precision: str) -> None:
    """See `our_step`."""
    serve(pipe, config, partial(our_step, config, size, precision))


def our_step(
    config: Recipe, size: tuple[int, int], precision: str, device: torch.device, classes: int
) -> tuple[nn.Module, Callable[[], None]]:
    """Model and training step with loss and optimiser as training builds them."""
    model = build_model(config, classes).to(device).train()
    if config["trainer"]["compile"]:
        model.compile()
    loss = make(config["loss"], ignore_index=255).to(device)
    optimizer, _ = make(config["optimizer"])(model, max_steps=1000)
    image, target = random_batch(config["batch_size"], size, classes, device)
    if config["trainer"]["channels_last"]:
        image = image.contiguous(memory_format=torch.channels_last)

    def call() -> None:
        with autocast(precision, device):
            outputs = model(image)
        sum(loss(outputs, target).values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return model, call


def peer_side(pipe: Connection, config: Recipe, size: tuple[int, int], precision: str) -> None:
    """See `peer_step`."""
    serve(pipe, config, partial(peer_step, config, size, precision, torch.contiguous_format))


def peer_step(
    config: Recipe,
    size: tuple[int, int],
    precision: str,
    memory_format: torch.memory_format,
    device: torch.device,
    classes: int,
) -> tuple[nn.Module, Callable[[], None]]:
    """The library's model and its step with plain interpolation, cross-entropy and SGD."""
    peer = PEERS[config["architecture"]["_target_"].rpartition(".")[2]]
    backbone = config["architecture"]["backbone"]["name"].partition(".")[0]
    model = peer.build(backbone, classes).to(device, memory_format=memory_format).train()
    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    image, target = random_batch(config["batch_size"], size, classes, device)
    image, target = (image.float() / 255 - 0.45) / 0.225, target.long()
    image = image.contiguous(memory_format=memory_format)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "16-mixed")

    def call() -> None:
        with autocast(precision, device):
            outputs = model(image)
            outputs = outputs.values() if isinstance(outputs, dict) else (outputs,)
            total = 0
            for scores, weight in zip(outputs, (1.0, 0.4), strict=False):
                resized = F.interpolate(scores, target.shape[1:], mode="bilinear")
                total = total + weight * F.cross_entropy(resized, target, ignore_index=255)
        scaler.scale(total).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return model, call


def serve(
    pipe: Connection,
    config: Recipe,
    build: Callable[[torch.device, int], tuple[nn.Module, Callable]],
) -> None:
    """Builds one side and does what the pipe asks for until it is closed."""
    use_gpu = uses_gpu(config["trainer"])
    try:
        device = torch.device("cuda" if use_gpu else "cpu")
        model, step = build(device, build_data(config).labels.num_classes)
        while True:
            question = pipe.recv()
            if question == "step":
                step()
                synchronise()
                pipe.send(0)
            elif question == "parameters":
                pipe.send(sum(parameter.numel() for parameter in model.parameters()))
            else:
                pipe.send(peak_memory(use_gpu))
    except (EOFError, BrokenPipeError):  # nobody asks any more
        return
    except Exception as error:  # crosses to the other process as a message
        pipe.send(f"{type(error).__name__}: {error}")


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The precision in which a side computes."""
    kind = PRECISIONS[precision]
    return torch.autocast(device.type, kind, enabled=kind is not torch.float32)


def random_batch(
    batch_size: int, size: tuple[int, int], classes: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 3, H, W) and train ids (N, H, W), both uint8."""
    image = torch.randint(0, 256, (batch_size, 3, *size), dtype=torch.uint8, device=device)
    target = torch.randint(0, classes, (batch_size, *size), dtype=torch.uint8, device=device)
    return image, target
