"""What passes between the parts: samples, batches, network outputs and label sets.

Data, networks, losses and metrics import this file and not one another; `task`, `build` and `cli`
put them together.
Shapes: N batch, K classes, H x W pixels of the image, h x w cells of a feature map.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NotRequired, Protocol, TypedDict
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np
import torch.nn.functional as F
from torch import Tensor

from segtrain.errors import UserError

VOID = 255  # the train id of pixels that count neither in loss nor in metric
UNKNOWN = 254  # marks raw values without an entry in a label map; no data set has 255 classes


class TrainBatch(TypedDict):
    """One step's samples, all of the crop size."""

    image: Tensor  # (N, 3, H, W) uint8 RGB, channels_last
    mask: Tensor  # (N, H, W) uint8 train ids, ignore_index where void
    name: list[str]


class EvalBatch(TypedDict):
    """Whole images, each with its own size."""

    image: list[Tensor]  # (3, H, W) uint8 RGB
    mask: list[Tensor]  # (H, W) uint8 train ids
    name: list[str]


class InstanceTarget(TypedDict):
    """The n instances of one image."""

    boxes: np.ndarray  # (n, 4) float32 x1 y1 x2 y2 in pixels, inside the image
    labels: np.ndarray  # (n,) int64 train ids, 0..K-1
    masks: np.ndarray  # (n, H, W) uint8, 0 or 1
    crowd: np.ndarray  # (n,) bool: many objects in one region, for evaluation only
    area: np.ndarray  # (n,) float32 pixels, as the annotation counts them
    image_id: int


class InstanceBatch(TypedDict):
    """Images of instance sets, each with its own size, in training and evaluation."""

    image: list[Tensor]  # (3, H, W) uint8 RGB
    target: list[InstanceTarget]  # the same with tensors for arrays
    name: list[str]


class Outputs(TypedDict):
    """What a semantic network returns: scores at the stride of the head that made them."""

    logits: Tensor  # (N, K, h, w)
    align_corners: bool  # how they are to be resized: the weights are made for one of the two
    aux: NotRequired[Tensor]  # (N, K, h', w'), of an auxiliary head; this and the rest in training
    scales: NotRequired[list[Tensor]]  # (N, K, h', w') each, of every scale of the image
    presence: NotRequired[Tensor]  # (N, K), whether the image shows a class


def resize(x: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Bilinear, where sizes differ: (N, C, h, w) -> (N, C, *size)."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=align_corners)


@dataclass(frozen=True)
class Listing:
    """What a split consists of on the disk.

    Args:
        key: changes when the samples do for another reason than their files, such as the label map.
        files: every file, as often as it is listed.
        patterns: absolute patterns of files that some split of the set must list.
        faults: what is wrong with the annotations as a whole, such as an id that stands twice.
    """

    key: str
    files: Sequence[str] = ()
    patterns: Sequence[str] = ()
    faults: Sequence[str] = ()


class Source(Protocol):
    """One split of a data set: random access to decoded images and their labels."""

    labelled: bool  # False where the labels are not public, as those of test splits

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What an error message or a picture calls this sample."""

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray | InstanceTarget]:
        """Image (H, W, 3) uint8 RGB, and mask (H, W) uint8 train ids or instances."""

    def class_counts(self, index: int) -> np.ndarray:
        """(K + 1,) int64: pixels (or instances) per class; last, void pixels (or crowds)."""

    def listing(self) -> Listing:
        """What the split consists of."""


@dataclass(frozen=True)
class Archive:
    """One file of a data set's official download.

    Args:
        url: where it is, or where it can be asked for.
        digest: `md5:<hex>`, `sha1:<hex>` or `sha256:<hex>`; None where none is published.
        folder: where it is extracted, relative to the data set's root.
        creates: paths relative to the root, one of which is there once it is extracted.
        login: whether only the user may fetch it, after agreeing to a licence.
        optional: whether the set is complete without it; it is used where the user has put it.
    """

    url: str
    digest: str | None
    folder: str
    creates: list[str]
    login: bool = False
    optional: bool = False

    @property
    def file_name(self) -> str:
        """What it is called on disk."""
        return unquote(urlsplit(self.url).path).rpartition("/")[2]


@dataclass(frozen=True)
class Preparation:
    """How a data set gets onto the disk, and what it must be like then.

    Args:
        root: its folder.
        archives: its official download.
        convert: (root) -> whether it did something; run after the archives are extracted.
        counts: images of each split of the complete set, in the order in which they are checked;
            null where no number is published.
        optional: splits that may be absent.
        note: what else the user should know.
    """

    root: str
    archives: list[Archive]
    convert: Callable[[Path], bool] | None
    counts: dict[str, int | None]
    optional: list[str]
    note: str | None


@dataclass(frozen=True)
class LabelSet:
    """The classes of a data set and how its mask files spell them.

    Args:
        names: one name a train id, K in all.
        palette: one RGB colour a train id.
        raw_to_train: every value that may stand in a mask file, or category id of an instance ->
            train id, or None for void.
    """

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    raw_to_train: Mapping[int, int | None]
    ignore_index: ClassVar[int] = VOID

    def __post_init__(self) -> None:
        train_ids = {train for train in self.raw_to_train.values() if train is not None}
        if len(self.palette) != len(self.names) or train_ids != set(range(len(self.names))):
            raise ValueError(
                f"a label set needs one colour and at least one raw value for each of its "
                f"{len(self.names)} classes; got {len(self.palette)} colours and train ids "
                f"{sorted(train_ids)}"
            )

    @property
    def num_classes(self) -> int:
        return len(self.names)

    @cached_property
    def lookup(self) -> np.ndarray:
        """(V,) uint8 table indexed by raw value; UNKNOWN where the label map has no entry."""
        table = np.full(max(256, max(self.raw_to_train) + 1), UNKNOWN, np.uint8)
        for raw, train in self.raw_to_train.items():
            table[raw] = self.ignore_index if train is None else train
        return table

    def encode(self, raw: np.ndarray) -> np.ndarray:
        """Raw mask (H, W) of any unsigned type -> train ids (H, W) uint8.

        Raises:
            UserError: a value has no entry in the map; names the value and the allowed ones.
        """
        if raw.dtype != np.uint8 and raw.size and int(raw.max()) >= len(self.lookup):
            raise UserError(self._unknown_message(int(raw.max())))
        train = cv2.LUT(raw, self.lookup[:256]) if raw.dtype == np.uint8 else self.lookup[raw]
        if (train == UNKNOWN).any():
            raise UserError(self._unknown_message(int(raw[train == UNKNOWN].min())))
        return train

    def decode(self, train: np.ndarray) -> np.ndarray:
        """Train ids (H, W) -> raw values (H, W), the first raw value of each class."""
        table = np.zeros(256, np.uint16 if max(self.raw_to_train) > 255 else np.uint8)
        for raw, train_id in sorted(self.raw_to_train.items(), reverse=True):
            table[self.ignore_index if train_id is None else train_id] = raw
        return table[train]

    def colorize(self, train: np.ndarray) -> np.ndarray:
        """Train ids (H, W) -> RGB (H, W, 3) uint8; void is white-ish grey."""
        colours = np.full((256, 3), 224, np.uint8)
        colours[: self.num_classes] = self.palette
        return colours[train]

    def describe(self) -> str:
        """The map on one line, as printed in messages: `0->background 1->aeroplane 255->void`.

        Where several raw values mean the same, they stand as ranges: `0-6,9,10->void`.
        """
        entries = []
        for train in (*range(self.num_classes), None):
            raw = [
                value for value, meaning in sorted(self.raw_to_train.items()) if meaning == train
            ]
            name = "void" if train is None else self.names[train]
            entries += [(raw[0], f"{_ranges(raw)}->{name}")] if raw else []
        return " ".join(entry for _, entry in sorted(entries))

    def _unknown_message(self, value: int) -> str:
        return f"mask value {value} is not in the label map; expected one of: {self.describe()}"


def _ranges(values: list[int]) -> str:
    """`0-6,9,10` of sorted numbers; the middle is left out where there are many ranges."""
    cuts = [i for i, value in enumerate(values) if i == 0 or value != values[i - 1] + 1]
    runs = [values[start:end] for start, end in zip(cuts, [*cuts[1:], None], strict=True)]
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ",".join(texts if len(texts) <= 8 else [*texts[:7], "...", texts[-1]])
