"""The endless training stream, whose every sample is a function of its position alone.

Position p of a run holds image `permutation(seed, p // n)[p % n]`, augmented by a generator seeded
with (seed, p); a mix adds images of positions a little ahead, drawn alike. So resuming needs one
number, the next position; nothing is re-read; and the order and the augmentation are the same for
any number of workers and processes. Shards may have an order of their own, which is such a function
as well.
"""

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Dataset, Sampler

from segtrain.contracts import InstanceTarget, Source, TrainInstances
from segtrain.dataset.mixing import Mix, Sample
from segtrain.dataset.order import permutation
from segtrain.dataset.shards import ShardSource


class TrainStream(Dataset):
    """Positions of the training stream -> augmented samples.

    Args:
        source: the training split.
        transform: (image, label, seed) -> augmented image and label.
        seed: of order and augmentation.
        mix: makes samples out of several; None where each is one image.
    """

    def __init__(
        self, source: Source, transform: Callable[..., Sample], seed: int, mix: Mix | None = None
    ) -> None:
        self.source = source
        self.transform = transform
        self.seed = seed
        self.mix = mix

    def __getitem__(self, position: int) -> tuple[np.ndarray, np.ndarray | TrainInstances, str]:
        def read(ahead: int) -> tuple[np.ndarray, np.ndarray | InstanceTarget]:
            return self.source.read(self._index(position + ahead))

        seed = (self.seed, position)
        if self.mix is None:
            sample = self.transform(*read(0), seed)
        else:
            sample = self.mix(read, self.transform, seed)
        return *sample, self.source.name(self._index(position))

    def _index(self, position: int) -> int:
        """The image at a position."""
        epoch, offset = divmod(position, len(self.source))
        if isinstance(self.source, ShardSource):
            return self.source.index_at(self.seed, epoch, offset)
        return int(permutation(len(self.source), self.seed, epoch)[offset])


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

    def __getitem__(self, position: int) -> tuple[np.ndarray, np.ndarray | InstanceTarget, str]:
        index = self.indices[position]
        if isinstance(self.source, ShardSource):
            self.source.approach(index)
        return *self.source.read(index), self.source.name(index)
