"""What all processes found: objects sent through host memory, and sums that have no order."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor


@contextmanager
def collective() -> Iterator[dist.ProcessGroup | None]:
    """A group of all processes that sends objects from host memory; None of a single process."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        yield None
        return
    group = dist.new_group(backend="gloo")  # nccl would send them through GPU memory
    try:
        yield group
    finally:
        dist.destroy_process_group(group)


def in_split_order(own: Sequence[float]) -> np.ndarray:
    """One figure an image, of all processes, in the order of the split; a collective call.

    Args:
        own: of this process's images: of w processes, every w-th image from its number on.

    Returns:
        (n,) float64 over the whole split.
    """
    with collective() as group:
        parts: list[Sequence[float]] = [own]
        if group is not None:
            parts = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(parts, list(own), group=group)
    figures = np.empty(sum(map(len, parts)))
    for process, part in enumerate(parts):
        figures[process :: len(parts)] = part
    return figures


def fixed_point(values: Tensor, bits: int) -> Tensor:
    """Fractions in 0..1 as int64 multiples of 2^-bits.

    Their sums are exact, so the same in any order and on any number of processes; floating-point
    sums are not. There is room for 2^(63 - bits) of them.
    """
    return (values.double() * 2**bits).round_().to(torch.int64)
