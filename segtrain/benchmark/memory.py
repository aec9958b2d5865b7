"""Host memory of a loader and its workers, epoch after epoch."""

import multiprocessing
import os
from pathlib import Path

from torch.utils.data import DataLoader

from segtrain.assembly import build_data
from segtrain.configuration.schema import Recipe
from segtrain.contracts import Source
from segtrain.dataset.pairs import ImageMaskPairs, Pair
from segtrain.dataset.stream import TrainStream
from segtrain.dataset.workers import one_thread
from segtrain.errors import UserError
from segtrain.values import Count, Natural


def loader_memory(
    config: Recipe,
    epochs: Count,
    num_workers: Natural,
    batch_size: Count,
    listed: Natural,
    samples: Count,
) -> list[dict]:
    """One row an epoch: proportional memory of this process and its workers, and its growth.

    The list of the training split is repeated up to `listed` entries; an epoch reads `samples` of
    them, spread evenly, so that all pages of the list are touched.

    Args:
        config: the resolved configuration.
        epochs: how many to read.
        num_workers: loader processes, kept over the epochs.
        batch_size: samples per batch.
        listed: length of the list; 0 for the split as it is.
        samples: read in an epoch.

    Raises:
        UserError: the operating system does not tell the memory of a process.
    """
    data = build_data(config)
    source = lengthened(data.source(data.splits["train"]), listed)
    loader = DataLoader(
        TrainStream(source, data.transform, config["seed"], data.mix),
        batch_size,
        sampler=[position * max(1, len(source) // samples) for position in range(samples)],
        num_workers=num_workers,
        collate_fn=data.transform.collate_train,
        worker_init_fn=one_thread,
        persistent_workers=num_workers > 0,
    )
    rows = []
    for epoch in range(1, epochs + 1):
        for _ in loader:
            pass
        megabytes = process_memory() / 2**20
        first = rows[0]["memory MB"] if rows else megabytes
        rows.append(
            {
                "data set": data.name,
                "listed images": len(source),
                "workers": num_workers,
                "epoch": epoch,
                "memory MB": megabytes,
                "of the first epoch": megabytes / first,
            }
        )
    return rows


def lengthened(source: Source, length: int) -> Source:
    """The source with its list repeated up to `length`, where it is one of files."""
    if not isinstance(source, ImageMaskPairs) or length <= len(source):
        return source
    pairs: list[Pair] = [source.pairs[index % len(source)] for index in range(length)]
    return ImageMaskPairs(pairs, source.labels, source.root)


def process_memory() -> int:
    """Bytes of this process and its children; shared pages count in equal parts to each.

    Raises:
        UserError: the operating system does not tell.
    """
    children = [child.pid for child in multiprocessing.active_children()]
    total = 0
    for pid in (os.getpid(), *children):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError as error:
            if pid != os.getpid():  # a child that has just ended
                continue
            raise UserError(f"measure=memory needs Linux's /proc ({error})") from None
        total += next(
            1024 * int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")
        )
    return total
