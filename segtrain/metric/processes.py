"""Python objects and single figures of all processes, sent through host memory."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch.distributed as dist


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
        (n,) float32 over the whole split.
    """
    with collective() as group:
        parts: list[Sequence[float]] = [own]
        if group is not None:
            parts = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(parts, list(own), group=group)
    figures = np.empty(sum(map(len, parts)), np.float32)
    for process, part in enumerate(parts):
        figures[process :: len(parts)] = part
    return figures
