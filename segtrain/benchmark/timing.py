"""Timing on machines whose speed drifts: contestants take turns, medians are compared."""

import resource
import statistics
import time
from collections.abc import Callable

import torch


def alternate(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds per call of each contestant, in turn A B A B ..., after one warm-up call each."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for call in contestants.values():
        call()
    for _ in range(rounds):
        for name, call in contestants.items():
            synchronise()
            started = time.perf_counter()
            call()
            synchronise()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def median_ratio(slow: list[float], fast: list[float]) -> float:
    """Median over the rounds of slow / fast: how many times faster the second one is."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def synchronise() -> None:
    """Waits for the device, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory(use_gpu: bool) -> int:
    """Bytes, of the device or of this process."""
    if use_gpu:
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
