"""The classes of a data set: names, colours, and how its files spell them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import cv2
import numpy as np

from segtrain.errors import UserError
from segtrain.text import visible

VOID = 255  # the train id of pixels that count neither in loss nor in metric
UNKNOWN = 254  # marks raw values without an entry in a label map; no data set has 255 classes
TABLE_SIZE = 2**24  # raw values of a label map that are looked up in a table: all 8-bit colours


@dataclass(frozen=True)
class LabelSet:
    """The classes of a data set and how its mask files spell them.

    Args:
        names: one name a train id, K in all.
        palette: one RGB colour a train id.
        raw_to_train: every value that may stand in a mask file, or category id of an instance ->
            train id, or None for void.
        colours: whether masks show classes by colour; raw values are 0xRRGGBB then.
        overlapping: whether a pixel may be of several classes, or of none; a class's raw value is
            then only the number that it is told by.
        things: of panoptic sets, the train ids of the classes whose instances are told apart; the
            others are stuff. None where masks are of classes, or all classes have instances.
    """

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    raw_to_train: Mapping[int, int | None]
    colours: bool = False
    overlapping: bool = False
    things: frozenset[int] | None = None
    ignore_index: ClassVar[int] = VOID

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(map(visible, self.names)))
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
        inside = {raw: train for raw, train in self.raw_to_train.items() if 0 <= raw < TABLE_SIZE}
        table = np.full(max(256, max(inside, default=0) + 1), UNKNOWN, np.uint8)
        for raw, train in inside.items():
            table[raw] = self.ignore_index if train is None else train
        return table

    def encode(self, raw: np.ndarray) -> np.ndarray:
        """Raw mask (H, W) of any integer type -> train ids (H, W) uint8.

        Raises:
            UserError: a value has no entry in the map; names the value and the allowed ones.
        """
        if raw.dtype == np.uint8:
            train = cv2.LUT(raw, self.lookup[:256])
        elif not raw.size or (raw.min() >= 0 and raw.max() < len(self.lookup)):
            train = self.lookup[raw]
        else:
            train = self._encode_outside(raw)
        if (train == UNKNOWN).any():
            raise UserError(self._unknown_message(int(raw[train == UNKNOWN].min())))
        return train

    def _encode_outside(self, raw: np.ndarray) -> np.ndarray:
        """As `encode`, of values that the table has no place for, such as -9999."""
        outside = (raw < 0) | (raw >= len(self.lookup))
        train = self.lookup[np.where(outside, 0, raw)]
        train[outside] = UNKNOWN
        for value, train_id in self.raw_to_train.items():
            if not 0 <= value < len(self.lookup):
                train[raw == value] = self.ignore_index if train_id is None else train_id
        return train

    def decode(self, train: np.ndarray) -> np.ndarray:
        """Train ids (H, W) -> raw values (H, W), the first raw value of each class."""
        table = np.zeros(256, np.result_type(*map(np.min_scalar_type, self.raw_to_train)))
        for raw, train_id in sorted(self.raw_to_train.items(), reverse=True):
            table[self.ignore_index if train_id is None else train_id] = raw
        return table[train]

    def colorize(self, train: np.ndarray) -> np.ndarray:
        """Train ids (H, W) -> RGB (H, W, 3) uint8; void is white-ish grey."""
        colours = np.full((256, 3), 224, np.uint8)
        colours[: self.num_classes] = self.palette
        return colours[train]

    def to_plain(self) -> dict:
        """The set as lists and texts, the same in a checkpoint and in JSON; see `from_plain`."""
        return {
            "names": list(self.names),
            "palette": [list(colour) for colour in self.palette],
            "raw_to_train": {str(raw): train for raw, train in self.raw_to_train.items()},
            **({"colours": True} if self.colours else {}),
            **({"overlapping": True} if self.overlapping else {}),
            **({} if self.things is None else {"things": sorted(self.things)}),
        }

    @classmethod
    def from_plain(cls, plain: dict) -> "LabelSet":
        """The set that `to_plain` wrote down."""
        return cls(
            tuple(plain["names"]),
            tuple(tuple(colour) for colour in plain["palette"]),
            {int(raw): train for raw, train in plain["raw_to_train"].items()},
            plain.get("colours", False),
            plain.get("overlapping", False),
            frozenset(plain["things"]) if "things" in plain else None,
        )

    def describe(self) -> str:
        """The map on one line, as printed in messages: `0->background 1->aeroplane 255->void`.

        Of classes that may overlap, their names. Where several raw values mean the same, they stand
        as ranges: `0-6,9,10->void`.
        """
        if self.overlapping:
            return " ".join(self.names)
        entries = []
        for train in (*range(self.num_classes), None):
            raw = [
                value for value, meaning in sorted(self.raw_to_train.items()) if meaning == train
            ]
            name = "void" if train is None else self.names[train]
            if raw:
                shown = " ".join(map(_colour, raw)) if self.colours else _ranges(raw)
                entries.append((raw[0], f"{shown}->{name}"))
        return " ".join(entry for _, entry in sorted(entries))

    def _unknown_message(self, value: int) -> str:
        expected = f"expected one of: {self.describe()}"
        if self.colours:
            return f"mask colour {_colour(value)} is not in the label map; {expected}"
        return f"mask value {value} is not in the label map; {expected}"


def _colour(value: int) -> str:
    """`250,50,83` of 0xFA3253."""
    return ",".join(map(str, value.to_bytes(3)))


def _ranges(values: list[int]) -> str:
    """`0-6,9,10` of sorted numbers; the middle is left out where there are many ranges."""
    cuts = [i for i, value in enumerate(values) if i == 0 or value != values[i - 1] + 1]
    runs = [values[start:end] for start, end in zip(cuts, [*cuts[1:], None], strict=True)]
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ",".join(texts if len(texts) <= 8 else [*texts[:7], "...", texts[-1]])
