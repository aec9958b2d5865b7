"""The endless training stream, whose every sample is a function of its position alone.

Position p of a run holds image `permutation(seed, p // n)[p % n]`, augmented by a generator seeded
with (seed, p). So resuming needs one number, the next position; nothing is re-read; and the order
and the augmentation are the same for any number of workers and processes.
"""

import random
from collections.abc import Iterator
from functools import lru_cache

import albumentations as A
import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from segtrain.contracts import EvalBatch, Source, TrainBatch


class TrainStream(Dataset):
    """Positions of the training stream -> augmented samples."""

    def __init__(self, source: Source, transform: A.Compose, seed: int) -> None:
        self.source = source
        self.transform = transform
        self.seed = seed

    def __getitem__(self, position: int) -> tuple[np.ndarray, np.ndarray, str]:
        epoch, offset = divmod(position, len(self.source))
        index = int(permutation(len(self.source), self.seed, epoch)[offset])
        image, mask = self.source.read(index)
        self.transform.set_random_state(
            np.random.default_rng([self.seed, position]),
            random.Random(f"{self.seed}/{position}"),
        )
        sample = self.transform(image=image, mask=mask)
        return sample["image"], sample["mask"], self.source.name(index)


@lru_cache(maxsize=2)
def permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    """The order of one epoch's images."""
    return np.random.default_rng([seed, epoch, length]).permutation(length)


class StepSampler(Sampler[list[int]]):
    """One process's share of the positions of each batch, from `first_batch` to `num_batches`.

    Batch b over all processes holds positions b*B .. (b+1)*B - 1; process r of w takes every w-th
    from r on. Its length counts the whole run, since a resumed run counts its batches from zero.
    """

    def __init__(
        self, num_batches: int, batch_size: int, rank: int, world_size: int, first_batch: int
    ) -> None:
        self.num_batches = num_batches
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.first_batch = first_batch

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[list[int]]:
        for batch in range(self.first_batch, self.num_batches):
            start = batch * self.batch_size
            yield list(range(start + self.rank, start + self.batch_size, self.world_size))


class EvalImages(Dataset):
    """One process's share of a split, whole images in their own size: every image exactly once."""

    def __init__(self, source: Source, rank: int, world_size: int) -> None:
        self.source = source
        self.indices = range(rank, len(source), world_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[np.ndarray, np.ndarray, str]:
        index = self.indices[position]
        return *self.source.read(index), self.source.name(index)


def collate_train(samples: list[tuple[np.ndarray, np.ndarray, str]]) -> TrainBatch:
    """Stacks crops as they lie in memory: the (N, 3, H, W) view is channels_last without a copy."""
    images, masks, names = zip(*samples, strict=True)
    return {
        "image": torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
        "mask": torch.from_numpy(np.stack(masks)),
        "name": list(names),
    }


def collate_eval(samples: list[tuple[np.ndarray, np.ndarray, str]]) -> EvalBatch:
    """Keeps each image's own size."""
    images, masks, names = zip(*samples, strict=True)
    return {
        "image": [torch.from_numpy(image).permute(2, 0, 1) for image in images],
        "mask": [torch.from_numpy(mask) for mask in masks],
        "name": list(names),
    }


def one_thread(worker: int) -> None:
    """Worker start-up: parallelism comes from the workers, not from threads inside them."""
    cv2.setNumThreads(0)
