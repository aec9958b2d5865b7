"""Which shards there are and what they hold.

`<location>/dataset.json` names the classes and the splits; `<split>/index.json` names the shards
with their hashes, and the table of where in them each sample lies. `segtrain.prepare.shards` writes
them.
"""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from segtrain.dataset.cache import cache_root
from segtrain.dataset.remote import is_remote
from segtrain.dataset.shard_store import FolderStore, RemoteStore, Shard
from segtrain.dataset.shards import ShardSource
from segtrain.errors import UserError
from segtrain.label_set import LabelSet

VERSION = 1
INDEX = "index.json"
DATASET = "dataset.json"
REMOTE_WINDOW = 8  # shards of a remote store whose samples are mixed, where nothing else is asked


@dataclass(frozen=True)
class ShardReading:
    """Where shards are read from, and how.

    Args:
        location: folder, or `s3://bucket/prefix` or `http(s)://host/path`.
        window: shards whose samples are mixed; `auto`: all of a folder's, 8 of a remote store's, or
            as many of them as fit twice into the cache; null: all.
        cache: folder that keeps shards of a remote store; None: `shards` in segtrain's cache.
        cache_gigabytes: what they may take there; None: any number.
    """

    location: str
    window: int | str | None = "auto"
    cache: str | None = None
    cache_gigabytes: float | None = None

    def store(self) -> FolderStore | RemoteStore:
        if not is_remote(self.location):
            return FolderStore(self.location)
        cache = Path(self.cache) if self.cache else cache_root() / "shards"
        limit = None if self.cache_gigabytes is None else int(self.cache_gigabytes * 1e9)
        return RemoteStore(self.location, cache, limit)

    def resolve_window(self, shards: list[Shard], remote: bool) -> int | None:
        """Shards whose samples are mixed; None for all.

        Raises:
            UserError: two windows of them, the one that is read and the one that is fetched, do
                not fit into the cache.
        """
        fit = len(shards)
        if remote and self.cache_gigabytes is not None:
            largest = max(shard.bytes for shard in shards)
            fit = int(self.cache_gigabytes * 1e9) // (2 * largest)
            if fit < 1 or (self.window not in (None, "auto") and int(self.window) > fit):
                needed = 2 * largest * (1 if self.window in (None, "auto") else int(self.window))
                raise UserError(
                    f"dataset.shard_cache_gb={self.cache_gigabytes:g} is too little: twice the "
                    f"shards that are mixed take {needed / 1e9:.3g} GB (the largest has "
                    f"{largest / 1e9:.3g}); allow more, or lower dataset.shard_window"
                )
        if self.window != "auto":
            return None if self.window is None else int(self.window)
        return min(REMOTE_WINDOW, fit) if remote else None


def open_shards(
    reading: ShardReading, splits: list[str], labels: LabelSet, semantic: bool
) -> ShardSource:
    """The samples of some splits, one after the other.

    Args:
        reading: where they are.
        splits: at least one.
        labels: what the data set's configuration says.
        semantic: whether labels are to be masks, not instances.

    Raises:
        UserError: there are no shards of such splits, or of other classes or labels; or a shard is
            lost or not whole.
    """
    store = reading.store()
    described = describe_shards(reading)
    check_description(described, store.where(DATASET), labels, semantic)
    for split in splits:
        if split not in described["splits"]:
            raise UserError(f"{store.location}: no shards of split '{split}'; there are: "
                            f"{', '.join(described['splits'])}")  # fmt: skip
    return join_splits(reading, splits, labels, semantic)


def join_splits(
    reading: ShardReading, splits: list[str], labels: LabelSet, semantic: bool
) -> ShardSource:
    """As `open_shards`, of splits that are known to fit."""
    store = reading.store()
    shards, tables, labelled = [], [], True
    for split in splits:
        with _naming_damage(store.where(f"{split}/{INDEX}")):
            index = json.loads(store.whole(f"{split}/{INDEX}"))
            labelled &= index["labelled"]
            shards += [Shard(**{**entry, "file": f"{split}/{entry['file']}"})
                       for entry in index["shards"]]  # fmt: skip
            table = read_table(store, split, index["table"])
        table["position"] += sum(len(other["position"]) for other in tables)
        tables.append(table)
    joined = {key: np.concatenate([table[key] for table in tables]) for key in tables[0]}
    window = reading.resolve_window(shards, store.remote)
    return ShardSource(store, shards, joined, labels, semantic, labelled, window)


def describe_shards(reading: ShardReading) -> dict:
    """Content of `dataset.json`: data set, kind of labels, classes, splits.

    Raises:
        UserError: there is none, or it is of another version.
    """
    store = reading.store()
    try:
        content = store.whole(DATASET)
    except UserError as error:
        raise UserError(
            f"dataset.shards={reading.location}: no shards there ({error}); segtrain prepare "
            "dataset=<name> shards=auto output=<folder> writes them"
        ) from None
    with _naming_damage(store.where(DATASET)):
        described = json.loads(content)
        if described["version"] != VERSION:
            raise UserError(f"{store.where(DATASET)}: shards of version {described['version']}, "
                            f"expected {VERSION}; write them again")  # fmt: skip
        LabelSet.from_plain(described["labels"])
        missing = {"dataset", "kind", "splits"} - described.keys()
        if missing:
            raise KeyError(*missing)
    return described


@contextmanager
def _naming_damage(where: str) -> Iterator[None]:
    """Says of which file it is that what was read of it is not what it should be."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: damaged ({error!r}); copy it anew, or write the shards "
                        "again") from None  # fmt: skip


def labels_of_shards(location: str) -> LabelSet:
    """The classes of the samples in shards; UserError as `describe_shards`."""
    return LabelSet.from_plain(describe_shards(ShardReading(location))["labels"])


def label_kind(labels: LabelSet, semantic: bool) -> str:
    """What samples are labelled with, as `dataset.json` says it.

    Args:
        labels: the classes.
        semantic: whether labels are masks, not instances.
    """
    if not semantic:
        return "instances"
    return "masks" if labels.things is None else "panoptic masks"


def check_description(described: dict, where: str, labels: LabelSet, semantic: bool) -> None:
    """Refuses shards whose labels are not the configuration's.

    Raises:
        UserError: says how they differ.
    """
    kind = label_kind(labels, semantic)
    if described["kind"] != kind:
        raise UserError(f"{where}: these shards hold {described['kind']}, the data set has {kind}; "
                        f"they were made of dataset={described['dataset']}")  # fmt: skip
    found = LabelSet.from_plain(described["labels"])
    parts = [(each.names, each.describe(), each.things) for each in (found, labels)]
    if parts[0] != parts[1]:
        raise UserError(
            f"{where}: these shards, of dataset={described['dataset']}, have other classes or "
            f"another label map: {found.describe()}; expected: {labels.describe()}"
        )


def read_table(store: FolderStore | RemoteStore, split: str, entry: dict) -> dict[str, np.ndarray]:
    """Where each sample of a split lies.

    Raises:
        UserError: it is lost or corrupt.
    """
    file = f"{split}/{entry['file']}"
    data = store.whole(file)
    if sha256(data).hexdigest() != entry["sha256"]:
        raise UserError(f"{store.where(file)}: corrupt (another sha256 than in the index); copy it "
                        "anew")  # fmt: skip
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)
