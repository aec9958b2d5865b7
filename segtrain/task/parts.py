"""The parts of a batch that go through a network one after the other."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from segtrain.architecture.blocks import batch_norms


def split(batch: dict, count: int) -> list[dict]:
    """A batch in parts of equal size; tensors and lists are over its images."""
    size = len(batch["name"]) // count
    return [
        {key: value[start : start + size] for key, value in batch.items()}
        for start in range(0, count * size, size)
    ]


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Lets batch norm normalise by the batch in training mode, but remember nothing of it."""
    norms = [norm for norm in batch_norms(model) if norm.training and norm.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
