"""Seconds and bytes of a call on the device."""

import contextlib
import resource
import time
from collections.abc import Callable, Iterator

import torch

from benchmarks.gpu.cell import Setting
from benchmarks.gpu.machine import query
from segtrain.benchmark.timing import synchronise


def seconds_per_call(call: Callable[[], object], at_least: float, most: int = 50) -> float:
    """Mean over calls that are queued one after the other, after one that is not timed.

    Args:
        call: starts work on the device.
        at_least: seconds that they are to take together; 0 for one call.
        most: calls.
    """
    call()
    synchronise()
    started = time.perf_counter()
    call()
    synchronise()
    once = time.perf_counter() - started
    if not at_least:
        return once
    count = max(2, min(most, round(at_least / max(once, 1e-6))))
    started = time.perf_counter()
    for _ in range(count):
        call()
    synchronise()
    return (time.perf_counter() - started) / count


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 products and convolutions may be rounded to TF32; put back at the end."""
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [flag.allow_tf32 for flag in flags]
    for flag in flags:
        flag.allow_tf32 = allowed
    try:
        yield
    finally:
        for flag, value in zip(flags, before, strict=True):
            flag.allow_tf32 = value


def reset_peak() -> None:
    """From here on `peak_mb` counts."""
    if torch.cuda.is_available():
        synchronise()
        torch.cuda.reset_peak_memory_stats()


def peak_mb(setting: Setting) -> float:
    """MB allocated at most on the device; of a CPU, resident in this process ever."""
    if setting.has_gpu:
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def held_mb(setting: Setting) -> float:
    """MB allocated now on the device; 0 on a CPU."""
    return torch.cuda.memory_allocated() / 2**20 if setting.has_gpu else 0.0


def clocks_under(call: Callable[[], object], seconds: float) -> dict[str, float]:
    """SM clock in MHz and power in W while the device works on calls that take so long each."""
    for _ in range(max(1, round(1.0 / max(seconds, 1e-3)))):
        call()
    found = query({"clocks.sm": "SM MHz under load", "power.draw": "W under load"})
    synchronise()
    return {name: float(value) for name, value in found.items() if _is_number(value)}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
