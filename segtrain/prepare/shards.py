"""Writing a data set as shards, and comparing them with what they were made of."""

import logging
import os
import shutil
import tarfile
import zlib
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import DataLoader, Dataset

from segtrain.contracts import InstanceTarget, Source
from segtrain.dataset.decoding import read_header
from segtrain.dataset.files import read_bytes
from segtrain.dataset.preflight import evenly_spaced
from segtrain.dataset.shard_index import (
    DATASET,
    INDEX,
    VERSION,
    ShardReading,
    describe_shards,
    join_splits,
    label_kind,
)
from segtrain.dataset.shard_labels import (
    INSTANCES_MEMBER,
    MASK_MEMBER,
    encode_instances,
    encode_mask,
)
from segtrain.dataset.shards import ShardSource
from segtrain.dataset.transforms import SemanticPreset
from segtrain.dataset.workers import one_thread
from segtrain.errors import UserError
from segtrain.terminal import track
from segtrain.writing import naming, write_json

if TYPE_CHECKING:
    from segtrain.dataset.datamodule import SegmentationData

logger = logging.getLogger("segtrain")

MEASURED = 64  # samples whose sizes tell that of a split
TABLE = "samples.npz"
COLUMNS = ("start", "image", "label_start", "label", "crc")


def write_shards(
    data: "SegmentationData",
    splits: list[str],
    count: int | str,
    megabytes: float,
    folder: Path,
    white: float | None = None,
) -> None:
    """Writes splits as shards, reads them back and compares every sample.

    Args:
        data: the data set, as its files are.
        splits: official names.
        count: shards of each split; `auto`: as many as make them `megabytes` large.
        megabytes: of a shard, about.
        folder: gets `dataset.json` and a folder for each split.
        white: what is white in images of more than 8 bits a channel; None where there are none.

    Raises:
        UserError: a split is there already, of another data set or not whole; a sample cannot be
            read; there is not enough space.
    """
    semantic = isinstance(data.transform, SemanticPreset)
    described = {
        "version": VERSION,
        "dataset": data.name,
        "kind": label_kind(data.labels, semantic),
        "labels": data.labels.to_plain(),
        "white_level": white,
        "splits": [],
    }
    if (folder / DATASET).is_file():
        found = describe_shards(ShardReading(str(folder)))
        described["splits"] = found["splits"]
        twice = [split for split in splits if split in described["splits"]]
        if {"white_level": None, **found, "splits": 0} != {**described, "splits": 0} or twice:
            raise UserError(
                f"{folder}: there are shards already, of {found['dataset']}, "
                f"{', '.join(described['splits'])}; remove them or choose another output=..."
            )
    for split in splits:
        source = data.source(split)
        write_split(source, split, folder, count, megabytes, data.num_workers)
        partial = f"{split}.partial"
        written = join_splits(ShardReading(str(folder)), [partial], data.labels, semantic)
        compare(source, written, data.num_workers)
        # What is there of a run that ended before it could list the split.
        shutil.rmtree(folder / split, ignore_errors=True)
        (folder / partial).rename(folder / split)
        described["splits"].append(split)
        write_json(folder / DATASET, described)
        logger.info("verified    %s: each of %d samples is what it was made of", split, len(source))


def write_split(
    source: Source,
    split: str,
    folder: Path,
    count: int | str,
    megabytes: float,
    num_workers: int,
) -> None:
    """Writes one split into `<split>.partial`. See `write_shards`."""
    needed = estimated_bytes(source)
    if count == "auto":
        count = max(1, round(needed / (megabytes * 1e6)))
    count = min(int(count), len(source))
    partial = folder / f"{split}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    free = shutil.disk_usage(partial).free
    if needed > 0.95 * free:
        raise UserError(f"{folder}: the shards of {split} need about {needed / 1e9:.1f} GB and "
                        f"{free / 1e9:.1f} GB are free; choose another output=...")  # fmt: skip
    logger.info("shards      writing %d images of %s to %d files, about %.3g GB, in %s",
                len(source), split, count, needed / 1e9, folder)  # fmt: skip
    loader = DataLoader(
        _Writing(source, partial, count), batch_size=None, num_workers=num_workers,
        worker_init_fn=one_thread,
    )  # fmt: skip
    shards, tables = [], []
    for shard, table in track(loader, count, f"writing {split}"):
        shards.append(shard)
        tables.append(table)
    table = {key: np.concatenate([part[key] for part in tables]) for key in tables[0]}
    np.savez_compressed(partial / TABLE, **table)
    entry = {"file": TABLE, "sha256": sha256((partial / TABLE).read_bytes()).hexdigest()}
    index = {"split": split, "samples": len(source), "labelled": bool(source.labelled),
             "table": entry, "shards": shards}  # fmt: skip
    write_json(partial / INDEX, index)


class _Writing(Dataset):
    """Shard numbers -> entries of the shards, which are written, in the index and the table."""

    def __init__(self, source: Source, folder: Path, count: int) -> None:
        self.source = source
        self.folder = folder
        # Neighbours, as frames of one film, are spread over the shards: every shard is a fair
        # sample of the split, so that mixing a few of them is mixing all.
        order = np.random.default_rng(len(source)).permutation(len(source))
        self.parts = np.array_split(order, count)

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> tuple[dict, dict[str, np.ndarray]]:
        positions = self.parts[number]
        path = self.folder / f"{number:05d}.tar"
        write_tar(self.source, positions, path)
        columns = locate(path)
        with open(path, "rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        entry = {"file": path.name, "bytes": path.stat().st_size, "sha256": digest,
                 "samples": len(positions)}  # fmt: skip
        names = [self.source.name(position).encode() for position in positions]
        return entry, {"position": positions, "name": np.array(names), **columns}


def write_tar(source: Source, positions: np.ndarray, path: Path) -> None:
    """One shard: per sample the image's own bytes, the label and the name."""
    try:
        from webdataset import TarWriter
    except ImportError:
        raise UserError("writing shards needs webdataset; pip install 'segtrain[shards]'") from None
    with (
        naming(path), open(path, "wb") as file,
        TarWriter(file, encoder=False, mtime=0.0) as tar,
    ):  # fmt: skip
        for position in positions.tolist():
            image, label = source.read(position)
            ending, content = image_bytes(source, position, image)
            tar.write(
                {"__key__": f"{position:08d}", f"image.{ending}": content,
                 **label_member(label), "name.txt": source.name(position).encode()}
            )  # fmt: skip


def image_bytes(source: Source, position: int, image: np.ndarray) -> tuple[str, bytes]:
    """Ending and bytes of an image's file, or a PNG of an image that is drawn or of many bits.

    Of more than 8 bits a channel it is as it was read, by the white level of the whole data set.
    """
    import cv2

    file = source.image_file(position)
    if file is not None:
        content = read_bytes(file)
        header = read_header(content)
        if header is None or not header.deep:
            return Path(file).suffix.lower().lstrip("."), content
    return "png", cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def label_member(label: np.ndarray | InstanceTarget) -> dict[str, bytes]:
    """Ending and bytes of a label."""
    if isinstance(label, np.ndarray):
        return {MASK_MEMBER: encode_mask(label)}
    return {INSTANCES_MEMBER: encode_instances(label)}


def locate(path: Path) -> dict[str, np.ndarray]:
    """Where each sample of a shard lies: columns of the table.

    A sample is read as one piece from its image's first byte to its label's last; WebDataset writes
    members in the order of their endings, the image first.
    """
    samples: dict[str, dict[str, tarfile.TarInfo]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, _, ending = member.name.partition(".")
            samples.setdefault(key, {})[ending.partition(".")[0]] = member
    rows = []
    with open(path, "rb") as file:
        for parts in samples.values():
            image, label = parts["image"], parts.get("trainids") or parts["instances"]
            label_start = label.offset_data - image.offset_data
            piece = os.pread(file.fileno(), label_start + label.size, image.offset_data)
            rows.append((image.offset_data, image.size, label_start, label.size, zlib.crc32(piece)))
    return dict(zip(COLUMNS, np.array(rows, np.int64).T, strict=True))


def estimated_bytes(source: Source) -> int:
    """Of a split's shards, by some of its samples."""
    indices = evenly_spaced(len(source), MEASURED)
    total = 0
    for index in indices:
        image, label = source.read(index)
        (member,) = label_member(label).values()
        total += len(image_bytes(source, index, image)[1]) + len(member) + 3 * 1024
    return total * len(source) // len(indices)


class _Compared(Dataset):
    """Samples -> what differs between a shard and what it was made of."""

    def __init__(self, source: Source, shards: ShardSource) -> None:
        self.source = source
        self.shards = shards

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> str | None:
        position = int(self.shards.table["position"][index])
        (image, label), (own_image, own_label) = self.source.read(position), self.shards.read(index)
        if not isinstance(label, dict):
            label, own_label = {"mask": label}, {"mask": own_label}
        same = np.array_equal(image, own_image) and all(
            np.array_equal(value, own_label[key]) for key, value in label.items()
        )
        return None if same else self.source.name(position)


def compare(source: Source, shards: ShardSource, num_workers: int) -> None:
    """Reads all of a split and its shards.

    Raises:
        UserError: a sample is not the same; names it.
    """
    loader = DataLoader(
        _Compared(source, shards), batch_size=None, num_workers=num_workers,
        worker_init_fn=one_thread,
    )  # fmt: skip
    for number, name in enumerate(track(loader, len(shards), "comparing")):
        if name is not None:
            file = shards.shards[shards.shard_of(number)].file
            raise UserError(f"{shards.store.where(file)}: {name} is not what its files hold; the "
                            "disk may be faulty, or they changed meanwhile")  # fmt: skip


def check_hashes(shards: ShardSource) -> None:
    """Reads every shard of a split as a whole.

    Raises:
        UserError: one is lost or corrupt; names it.
    """
    for shard in track(shards.shards, len(shards.shards), "checking"):
        with open(shards.store.path(shard), "rb") as file:
            found = file_digest(file, "sha256").hexdigest()
        if found != shard.sha256:
            raise UserError(f"{shards.store.where(shard.file)}: this shard is corrupt: its sha256 "
                            f"is {found}, expected {shard.sha256}; copy it anew")  # fmt: skip
