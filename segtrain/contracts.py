"""What passes between the parts: samples, batches, network outputs and label sets.

Data, networks, losses and metrics import this file and not one another; `task`, `build` and `cli`
put them together.
Shapes: N batch, K classes, H x W pixels of the image, h x w cells of a feature map.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NotRequired, Protocol, TypedDict

import cv2
import numpy as np
from torch import Tensor

from segtrain.errors import UserError

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


class Outputs(TypedDict):
    """What a semantic network returns: scores at the stride of the head that made them."""

    logits: Tensor  # (N, K, h, w)
    aux: NotRequired[Tensor]  # (N, K, h', w'), training only


class Source(Protocol):
    """One split of a data set: random access to decoded images and train-id masks."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What an error message or a picture calls this sample."""

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) uint8 RGB and mask (H, W) uint8 train ids."""


@dataclass(frozen=True)
class LabelSet:
    """The classes of a data set and how its mask files spell them.

    Args:
        names: one name a train id, K in all.
        palette: one RGB colour a train id.
        raw_to_train: every value that may stand in a mask file -> train id, or None for void.
        ignore_index: the train id given to void pixels.
    """

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    raw_to_train: Mapping[int, int | None]
    ignore_index: int = 255

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
        """The map on one line, as printed in messages: `0->background 1->aeroplane 255->void`."""
        return " ".join(
            f"{raw}->{'void' if train is None else self.names[train]}"
            for raw, train in sorted(self.raw_to_train.items())
        )

    def _unknown_message(self, value: int) -> str:
        return f"mask value {value} is not in the label map; expected one of: {self.describe()}"
