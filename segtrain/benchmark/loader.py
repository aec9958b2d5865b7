"""Training samples per second, against the ways in which others prepare them."""

import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, TypedDict

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from segtrain.assembly import build_data
from segtrain.benchmark.pipelines import AlbumentationsPipeline, ReferencePipeline
from segtrain.benchmark.timing import median_ratio
from segtrain.configuration.schema import Recipe
from segtrain.contracts import Source
from segtrain.dataset.datamodule import SegmentationData
from segtrain.dataset.labels import VOC
from segtrain.dataset.pairs import ImageMaskPairs, Pair
from segtrain.dataset.pixels import CachedPixels, write_pixels
from segtrain.dataset.shapes import render_scene
from segtrain.dataset.shard_index import ShardReading, join_splits
from segtrain.dataset.shards import ShardSource
from segtrain.dataset.stream import TrainStream
from segtrain.dataset.transforms import SemanticPreset
from segtrain.dataset.workers import one_thread
from segtrain.label_set import LabelSet
from segtrain.prepare.shards import write_split
from segtrain.values import FILLED, Count, Natural, Size, Text

SHARDS = 4  # files into which the source is written


class Generated(TypedDict):
    """Images that stand in for a data set without files."""

    count: Count
    size: Size
    format: Literal["jpg", "png"]


def loader_speed(
    config: Recipe,
    samples: Count,
    rounds: Count,
    num_workers: Annotated[list[Natural], FILLED],
    batch_size: Count,
    generated: Generated,
    ways: list[Text] | None,
) -> list[dict]:
    """One row per worker count (0: one thread of this process) and way of reading.

    Reads the training split of `config["dataset"]` with its training preset: as it is, from the
    cache of decoded pixels, from shards, as torchvision's references do and in albumentations'
    usual order; sets of instances as they are and from shards only. A set without files is replaced
    by generated ones.

    Args:
        config: the resolved configuration.
        samples: per round and way.
        rounds: the ways take turns this many times.
        num_workers: loader processes to measure with.
        batch_size: samples per batch.
        generated: `count`, `size` (height, width) and `format` (jpg or png) of generated images.
        ways: those to measure, the first being the yardstick; None for all.
    """
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    data = build_data(config)
    with tempfile.TemporaryDirectory() as folder:
        source = data.source(data.splits["train"])
        if isinstance(data.transform, SemanticPreset) and not source.listing().files:
            source = generate_pairs(Path(folder), labels=VOC, **generated)
        rows = []
        for workers in num_workers:
            every = contestants(config, data, source, samples, workers, batch_size, Path(folder))
            loaders = {way: every[way]() for way in ways or every}
            rows += _compare(data.name, loaders, workers, samples, rounds)
    return rows


def contestants(
    config: Recipe,
    data: SegmentationData,
    source: Source,
    samples: int,
    workers: int,
    batch_size: int,
    folder: Path,
) -> dict[str, Callable[[], DataLoader]]:
    """What makes the loader of each way of reading the source, by the way's name; ours first.

    Shards are left out where webdataset, which writes them, is not installed.
    """

    def ours(read_from: Source) -> DataLoader:
        stream = TrainStream(read_from, data.transform, config["seed"], data.mix)
        return DataLoader(
            stream, batch_size, sampler=range(samples), num_workers=workers,
            collate_fn=data.transform.collate_train, worker_init_fn=one_thread,
            persistent_workers=workers > 0,
        )  # fmt: skip

    ways = {"segtrain": lambda: ours(source)}
    if isinstance(data.transform, SemanticPreset):
        ways["segtrain, cached"] = lambda: ours(as_pixels(source, workers, folder / "pixels"))
    if find_spec("webdataset"):
        ways["segtrain, shards"] = lambda: ours(as_shards(data, source, workers, folder / "shards"))
    # Object crops have no counterpart in the peers.
    if isinstance(source, ImageMaskPairs) and "scale_range" in config["dataset"]["transform"]:

        def peer(pipeline: type[Dataset]) -> DataLoader:
            dataset = pipeline(source.pairs, config["dataset"]["transform"], samples)
            return DataLoader(
                dataset, batch_size, num_workers=workers, worker_init_fn=one_thread,
                persistent_workers=workers > 0,
            )  # fmt: skip

        ways["torchvision references"] = lambda: peer(ReferencePipeline)
        ways["albumentations, resize then crop"] = lambda: peer(AlbumentationsPipeline)
    return ways


def as_pixels(source: Source, workers: int, folder: Path) -> CachedPixels:
    """The source's decoded pixels in a folder, written where they are not there yet."""
    if not folder.exists():
        folder.mkdir()
        write_pixels(source, folder, workers)
    return CachedPixels(source, folder)


def as_shards(data: SegmentationData, source: Source, workers: int, folder: Path) -> ShardSource:
    """The source as shards in a folder, written where they are not there yet."""
    reading = ShardReading(str(folder))
    semantic = isinstance(data.transform, SemanticPreset)
    if not folder.exists():
        write_split(source, "train", folder, SHARDS, 0.0, workers)
    return join_splits(reading, ["train.partial"], data.labels, semantic)


def generate_pairs(
    folder: Path,
    labels: LabelSet,
    count: int,
    size: tuple[int, int],
    format: str,  # noqa: A002
) -> ImageMaskPairs:
    """Image and palette PNG files, drawn by the embedded set."""
    pairs = []
    for index in range(count):
        scene = render_scene(np.random.default_rng(index), *size)
        pair = Pair(str(folder / f"{index}.{format}"), str(folder / f"{index}_mask.png"))
        Image.fromarray(scene.image).save(pair.image, quality=92)
        mask = Image.fromarray(scene.mask, mode="P")
        mask.putpalette([channel for colour in labels.palette for channel in colour])
        mask.save(pair.mask)
        pairs.append(pair)
    return ImageMaskPairs(pairs, labels, folder)


def _compare(
    name: str, loaders: dict[str, DataLoader], workers: int, samples: int, rounds: int
) -> list[dict]:
    for loader in loaders.values():
        _epoch_seconds(loader)  # workers start, files enter the page cache
    seconds: dict[str, list[float]] = {way: [] for way in loaders}
    for _ in range(rounds):
        for way, loader in loaders.items():
            seconds[way].append(_epoch_seconds(loader))
    rows = []
    for way, times in seconds.items():
        speed = samples / statistics.median(times)
        rows.append(
            {
                "data set": name,
                "way": way,
                "workers": workers or "0 (one thread)",
                "samples/s": speed,
                "samples/s per worker": speed / max(1, workers),
                "times segtrain": median_ratio(seconds["segtrain"], times),
            }
        )
    return rows


def _epoch_seconds(loader: DataLoader) -> float:
    started = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - started
