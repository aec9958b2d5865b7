"""Training samples per second, against the way torchvision's reference scripts prepare them."""

import random
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ColorJitter
from torchvision.transforms import functional as TF

from segtrain.benchmark.timing import median_ratio
from segtrain.build import build_data
from segtrain.contracts import LabelSet
from segtrain.dataset.labels import VOC
from segtrain.dataset.pairs import ImageMaskPairs, Pair
from segtrain.dataset.shapes import render_scene
from segtrain.dataset.stream import TrainStream, one_thread

GENERATED_SIZE = (375, 500)  # height, width: the usual size of a VOC image


class ReferencePipeline(Dataset):
    """PIL decode, resize the whole image, flip, crop, colour jitter, float normalise on the CPU.

    The steps of torchvision's `references/segmentation` presets with the same crop, scale range,
    flip and jitter strengths as ours.
    """

    def __init__(self, pairs: list[Pair], settings: dict, length: int) -> None:
        self.pairs = pairs
        self.crop = tuple(settings["crop_size"])
        self.scale_range = settings["scale_range"]
        self.flip = settings["flip"]
        names = ("brightness", "contrast", "saturation", "hue")
        self.jitter = ColorJitter(*(settings[name] for name in names))
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        pair = self.pairs[index % len(self.pairs)]
        image, mask = Image.open(pair.image).convert("RGB"), Image.open(pair.mask)
        scale = random.uniform(*self.scale_range)
        size = [round(image.height * scale), round(image.width * scale)]
        image = TF.resize(image, size)
        mask = TF.resize(mask, size, interpolation=TF.InterpolationMode.NEAREST)
        if random.random() < self.flip:
            image, mask = TF.hflip(image), TF.hflip(mask)
        padding = [0, 0, max(0, self.crop[1] - size[1]), max(0, self.crop[0] - size[0])]
        image, mask = TF.pad(image, padding), TF.pad(mask, padding, fill=255)
        top = random.randint(0, image.height - self.crop[0])
        left = random.randint(0, image.width - self.crop[1])
        image = self.jitter(TF.crop(image, top, left, *self.crop))
        mask = TF.crop(mask, top, left, *self.crop)
        tensor = TF.convert_image_dtype(TF.pil_to_tensor(image), torch.float32)
        tensor = TF.normalize(tensor, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        return tensor, torch.as_tensor(np.array(mask), dtype=torch.int64)


def loader_speed(
    config: dict, samples: int, rounds: int, num_workers: list[int], batch_size: int
) -> list[dict]:
    """One row per worker count (0: one thread of this process): samples/s of both and the ratio.

    Reads the training split of `config["dataset"]`. A set without files is replaced by generated
    500x375 JPEG and palette PNG files with the training preset of that configuration.

    Args:
        config: the resolved configuration.
        samples: per round and pipeline.
        rounds: the two pipelines take turns this many times.
        num_workers: loader processes to measure with.
        batch_size: samples per batch.
    """
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    data = build_data(config)
    with tempfile.TemporaryDirectory() as folder:
        source = data.train_source
        if not isinstance(source, ImageMaskPairs):
            source = generate_pairs(Path(folder), count=32, labels=VOC)
        ours = TrainStream(source, data.transform, config["seed"])
        peer = ReferencePipeline(source.pairs, config["dataset"]["transform"], samples)
        return [
            _compare(ours, peer, workers, samples, rounds, batch_size) for workers in num_workers
        ]


def generate_pairs(folder: Path, count: int, labels: LabelSet) -> ImageMaskPairs:
    """JPEG and palette PNG files of VOC size, drawn by the embedded set."""
    pairs = []
    for index in range(count):
        scene = render_scene(np.random.default_rng(index), *GENERATED_SIZE)
        pair = Pair(str(folder / f"{index}.jpg"), str(folder / f"{index}.png"))
        Image.fromarray(scene.image).save(pair.image, quality=92)
        mask = Image.fromarray(scene.mask, mode="P")
        mask.putpalette([channel for colour in labels.palette for channel in colour])
        mask.save(pair.mask)
        pairs.append(pair)
    return ImageMaskPairs(pairs, labels, folder)


def _compare(
    ours: TrainStream,
    peer: ReferencePipeline,
    workers: int,
    samples: int,
    rounds: int,
    batch_size: int,
) -> dict:
    loaders = {
        "ours": DataLoader(
            ours, batch_size, sampler=range(samples), num_workers=workers,
            collate_fn=ours.transform.collate_train, worker_init_fn=one_thread,
            persistent_workers=workers > 0,
        ),
        "peer": DataLoader(
            peer, batch_size, num_workers=workers, persistent_workers=workers > 0,
        ),
    }  # fmt: skip
    for loader in loaders.values():
        _epoch_seconds(loader)  # workers start, files enter the page cache
    seconds: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(rounds):
        for name, loader in loaders.items():
            seconds[name].append(_epoch_seconds(loader))
    return {
        "workers": workers or "0 (one thread)",
        "segtrain samples/s": samples / statistics.median(seconds["ours"]),
        "torchvision reference samples/s": samples / statistics.median(seconds["peer"]),
        "times faster": median_ratio(seconds["peer"], seconds["ours"]),
    }


def _epoch_seconds(loader: DataLoader) -> float:
    started = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - started
