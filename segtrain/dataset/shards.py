"""Samples in shards: plain tar files in WebDataset's layout, read at random through an index."""

import zlib
from functools import lru_cache
from hashlib import sha256

import numpy as np

from segtrain.contracts import InstanceTarget, Listing
from segtrain.dataset.counts import count_labels
from segtrain.dataset.files import decode_image
from segtrain.dataset.order import block_order, permutation, windowed_permutation
from segtrain.dataset.shard_labels import decode_instances, decode_mask
from segtrain.dataset.shard_store import FolderStore, RemoteStore, Shard
from segtrain.errors import UserError
from segtrain.label_set import LabelSet


class ShardSource:
    """One split, or several joined, from shards. Index i is the i-th sample as it lies in them.

    Args:
        store: where the shards are.
        shards: all of them, in order.
        table: arrays of one entry a sample, in order, as `segtrain.prepare.shards` makes them.
        labels: the classes.
        semantic: whether labels are masks, not instances.
        labelled: False where the labels are not public.
        window: shards whose samples are mixed in training; None for all, and then the order is that
            of the files that the shards were made of.
    """

    def __init__(
        self,
        store: FolderStore | RemoteStore,
        shards: list[Shard],
        table: dict[str, np.ndarray],
        labels: LabelSet,
        semantic: bool,
        labelled: bool,
        window: int | None,
    ) -> None:
        self.store = store
        self.shards = shards
        self.table = table
        self.labels = labels
        self.semantic = semantic
        self.labelled = labelled
        self.window = window
        self.counts = [shard.samples for shard in shards]
        self.ends = np.cumsum(self.counts)
        self.stored_at = np.argsort(table["position"])
        self._entered: tuple[int, int] | None = None  # window or shard that was read from last
        store.check(shards)

    def __len__(self) -> int:
        return len(self.table["name"])

    def name(self, index: int) -> str:
        return self.table["name"][index].decode()

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray | InstanceTarget]:
        """Image (H, W, 3) uint8 RGB and mask (H, W) uint8 train ids, or instances.

        Raises:
            UserError: the shard is lost or corrupt; names it.
        """
        image, label = self.content(index)
        pixels = decode_image(image, self.name(index))
        if self.semantic:
            return pixels, decode_mask(label, pixels.shape[:2])
        return pixels, decode_instances(label)

    def content(self, index: int) -> tuple[bytes, bytes]:
        """The image's and the label's bytes as they lie in the shard; UserError as `read`."""
        shard = self.shards[self.shard_of(index)]
        start, image, label_start, label = (
            int(self.table[key][index]) for key in ("start", "image", "label_start", "label")
        )
        data = self.store.read(shard, start, label_start + label)
        if zlib.crc32(data) != int(self.table["crc"][index]):
            raise UserError(
                f"{self.store.where(shard.file)}: this shard is corrupt: {self.name(index)} is not "
                "what was written there; copy the shard anew"
            )
        return data[:image], data[label_start:]

    def shard_of(self, index: int) -> int:
        """Number of the shard that holds a sample."""
        return int(np.searchsorted(self.ends, index, side="right"))

    def image_file(self, index: int) -> None:
        """The images lie in shards."""

    def class_counts(self, index: int) -> np.ndarray:
        """(K + 1,) int64 pixels (instances) per class; last, void pixels (crowds)."""
        return count_labels(self.read(index)[1], self.labels)

    def listing(self) -> Listing:
        files = [] if self.store.remote else [str(self.store.path(shard)) for shard in self.shards]
        digest = sha256("\n".join(shard.sha256 for shard in self.shards).encode()).hexdigest()
        return Listing(key=f"shards {digest} {self.labels.describe()}", files=files)

    def index_at(self, seed: int, epoch: int, offset: int) -> int:
        """The sample at an offset of an epoch of the training stream; has what follows fetched."""
        if self.window is None:
            return int(self.stored_at[permutation(len(self), seed, epoch)[offset]])
        order, ends = window_order(tuple(self.counts), self.window, seed, epoch)
        if self.store.remote:
            entered = epoch, int(np.searchsorted(ends, offset, side="right"))
            if entered != self._entered:
                self._entered = entered
                self._expect(seed, *entered)
        return int(order[offset])

    def approach(self, index: int) -> None:
        """Has the shard of a sample and the one after it fetched, as reading one by one needs."""
        number = self.shard_of(index)
        if self.store.remote and self._entered != (-1, number):
            self._entered = -1, number
            self.store.expect(self.shards[number : number + 2])

    def head(self) -> "ShardSource":
        """The first shard alone."""
        count = self.counts[0]
        table = {key: values[:count] for key, values in self.table.items()}
        return ShardSource(self.store, self.shards[:1], table, self.labels, self.semantic,
                           self.labelled, None)  # fmt: skip

    def _expect(self, seed: int, epoch: int, window: int) -> None:
        """Has the shards of this window and of the next one fetched."""
        first = window * self.window
        now = block_order(len(self.shards), seed, epoch)[first:]
        following = block_order(len(self.shards), seed, epoch + 1)
        chosen = np.concatenate([now, following])[: 2 * self.window]
        self.store.expect([self.shards[number] for number in chosen])


@lru_cache(maxsize=2)
def window_order(
    counts: tuple[int, ...], window: int, seed: int, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """`windowed_permutation`, kept."""
    return windowed_permutation(counts, window, seed, epoch)
