"""Cross-entropy of large scores here, against plain interpolation and cross-entropy."""

import multiprocessing
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from statistics import median

import torch
import torch.nn.functional as F

from segtrain.assembly import make
from segtrain.benchmark.step import ask
from segtrain.benchmark.timing import alternate, median_ratio, peak_memory, synchronise
from segtrain.configuration.schema import Recipe
from segtrain.hardware import uses_gpu
from segtrain.values import Count, Size

PLAIN = "plain"


def loss_speed(
    config: Recipe,
    classes: Count,
    size: Size,
    stride: Count,
    rounds: Count,
    threads: Count | None,
) -> list[dict]:
    """Two rows: loss and gradient of random scores, here and plainly; time and peak memory.

    Each side lives in a process of its own, and they take turns. Memory is what a call adds to a
    process that has computed a small loss before.

    Args:
        config: the resolved configuration: its loss and batch size.
        classes: K.
        size: H and W of the labels.
        stride: pixels between the scores.
        rounds: timed calls, after one that is not.
        threads: of PyTorch in each process; null for its default.
    """
    use_gpu = uses_gpu(config["trainer"])
    shape = (config["batch_size"], classes, *size)
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for side in ("segtrain", PLAIN):
        pipes[side], end = context.Pipe()
        arguments = (end, config["loss"] if side == "segtrain" else None, shape, stride, threads)
        context.Process(target=serve, args=(*arguments, use_gpu), daemon=True).start()
        end.close()
    calls = {side: partial(ask, pipe, "step", side) for side, pipe in pipes.items()}
    seconds = alternate(calls, rounds)
    memory = {side: ask(pipe, "memory", side) for side, pipe in pipes.items()}
    for pipe in pipes.values():
        pipe.close()
    return [
        {
            "side": side,
            "scores": "x".join(map(str, shape)),
            "stride": stride,
            "ms": 1e3 * median(seconds[side]),
            "peak memory MB": memory[side] / 2**20,
            "time ratio": median_ratio(seconds[side], seconds[PLAIN]),
            # scores so small that they fit where others were before have no ratio
            "memory ratio": memory[side] / memory[PLAIN] if memory[PLAIN] else float("nan"),
        }
        for side in pipes
    ]


def serve(
    pipe: Connection,
    loss: dict | None,
    shape: tuple[int, int, int, int],
    stride: int,
    threads: int | None,
    use_gpu: bool,
) -> None:
    """Answers `step` (0 when done) and `memory` (bytes) until the pipe is closed."""
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        device = torch.device("cuda" if use_gpu else "cpu")
        step = build(loss, device)
        step(random_scores((1, *shape[1:2], 64, 64), stride, device))
        given = random_scores(shape, stride, device)
        before = peak_memory(use_gpu)
        while True:
            if pipe.recv() == "step":
                step(given)
                synchronise()
                pipe.send(0)
            else:
                pipe.send(peak_memory(use_gpu) - before)
    except (EOFError, BrokenPipeError):  # nobody asks any more
        return
    except Exception as error:  # crosses to the other process as a message
        pipe.send(f"{type(error).__name__}: {error}")


def build(
    loss: dict | None, device: torch.device, see: Callable[[torch.Tensor], object] | None = None
) -> Callable:
    """The loss of a configuration and its gradient, or where that is None the plain ones.

    Args:
        loss: configuration.
        device: on which both are worked out.
        see: takes the loss of each call.
    """
    ours = None if loss is None else make(loss, ignore_index=255).to(device)

    def step(given: tuple[torch.Tensor, torch.Tensor]) -> None:
        scores, target = given
        scores.grad = None
        if ours is None:
            whole = F.interpolate(scores, target.shape[1:], mode="bilinear")
            total = F.cross_entropy(whole, target.long(), ignore_index=255)
        else:
            total = ours({"logits": scores, "align_corners": False}, target)["main"]
        total.backward()
        if see is not None:
            see(total.detach())

    return step


def random_scores(
    shape: tuple[int, ...], stride: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (N, K, H / stride, W / stride) that learn, and train ids (N, H, W) uint8."""
    batch, classes, height, width = shape
    scores = torch.randn(batch, classes, -(-height // stride), -(-width // stride), device=device)
    target = torch.randint(0, classes, (batch, height, width), dtype=torch.uint8, device=device)
    return scores.requires_grad_(), target
