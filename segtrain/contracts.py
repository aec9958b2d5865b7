"""What passes between the parts: samples, batches, network outputs and label sets.

Data, networks, losses and metrics import this file and not one another; `task`, `build` and `cli`
put them together.
Shapes: N batch, K classes, H x W pixels of the image, h x w cells of a feature map.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, NotRequired, Protocol, TypedDict

import cv2
import numpy as np
import torch.nn.functional as F
from torch import Tensor

from segtrain.errors import UserError
from segtrain.text import visible

VOID = 255  # the train id of pixels that count neither in loss nor in metric
DENSE = ("semantic", "multilabel")  # tasks whose networks score every class at every pixel
UNKNOWN = 254  # marks raw values without an entry in a label map; no data set has 255 classes
TABLE_SIZE = 2**24  # raw values of a label map that are looked up in a table: all 8-bit colours


class TrainBatch(TypedDict):
    """One step's samples, all of the crop size."""

    image: Tensor  # (N, 3, H, W) uint8 RGB, channels_last
    # (N, H, W) uint8 train ids, ignore_index where void; or (N, H, W, B), see `segtrain.planes` and
    # `segtrain.segments`
    mask: Tensor
    name: list[str]
    colours: NotRequired[Tensor]  # (N, 3, 4) float32, left to the device: see `recolour`


class EvalBatch(TypedDict):
    """Whole images, each with its own size."""

    image: list[Tensor]  # (3, H, W) uint8 RGB
    mask: list[Tensor]  # (H, W) uint8 train ids; or (H, W, B), as of `TrainBatch`
    name: list[str]


class InstanceTarget(TypedDict):
    """The n instances of one image."""

    boxes: np.ndarray  # (n, 4) float32 x1 y1 x2 y2 in pixels, inside the image
    labels: np.ndarray  # (n,) int64 train ids, 0..K-1
    masks: np.ndarray  # (n, H, W) uint8, 0 or 1
    crowd: np.ndarray  # (n,) bool: many objects in one region, for evaluation only
    area: np.ndarray  # (n,) float32 pixels, as the annotation counts them
    image_id: int


class TrainInstances(TypedDict):
    """The n single objects of one training image; crowds are no examples.

    Only the pixels around each object travel: its window holds its mask's bounding box and one
    pixel more on every side where the image goes on.
    """

    boxes: Tensor  # (n, 4) float32 x1 y1 x2 y2 in pixels
    labels: Tensor  # (n,) int64 train ids, 0..K-1
    windows: Tensor  # (n, 4) int64 x1 y1 x2 y2 in whole pixels
    crops: Tensor  # (P,) uint8, 0 or 1: the windows' mask pixels, row by row, one after another


class InstanceTrainBatch(TypedDict):
    """Images of instance sets to train on, each with its own size."""

    image: list[Tensor]  # (3, H, W) uint8 RGB
    target: list[TrainInstances]
    name: list[str]


class TrueInstances(TypedDict):
    """The n instances of one image as they are evaluated, crowds included."""

    boxes: np.ndarray  # (n, 4) float32 x1 y1 x2 y2
    labels: np.ndarray  # (n,) int64 train ids
    crowd: np.ndarray  # (n,) bool
    area: np.ndarray  # (n,) float32 pixels, as the annotation counts them
    codes: list[bytes]  # n masks as COCO's compressed run-length codes
    size: tuple[int, int]  # H, W of the image
    image_id: int


class InstanceEvalBatch(TypedDict):
    """Whole images of instance sets, each with its own size."""

    image: list[Tensor]  # (3, H, W) uint8 RGB
    target: list[TrueInstances]
    name: list[str]


# How masks lie in their boxes: stretched over boxes whose corners are cut to whole pixels, as
# torchvision pastes them, or sampled where pixels have their centres, as detectron2 does.
Frames = Literal["whole_pixels", "exact"]


class Detections(TypedDict):
    """The n instances or proposals that a network finds in one image, best first."""

    boxes: Tensor  # (n, 4) float32 x1 y1 x2 y2 in pixels of the image; the frames of the masks
    scores: Tensor  # (n,) float32
    labels: Tensor  # (n,) int64 train ids; all zero for proposals
    masks: Tensor  # (n, M, M) float32 probabilities, stretched over their boxes; see `frames`
    # Of the masks: whole_pixels, unless it is said. With `image`, masks are (n, H, W) bool of the
    # whole image, and boxes are the ones around them.
    frames: NotRequired[Frames | Literal["image"]]


class DetectionOutputs(TypedDict):
    """What a detector returns in training: scores and offsets, each with what it should be.

    S sampled anchors, P of them positive; R sampled regions, Q of them positive.
    """

    objectness: Tensor  # (S,) logits
    objectness_target: Tensor  # (S,) 0.0 or 1.0
    anchor_deltas: Tensor  # (P, 4)
    anchor_target: Tensor  # (P, 4)
    class_logits: Tensor  # (R, 1 + K), background first
    class_target: Tensor  # (R,) 0..K
    box_deltas: Tensor  # (Q, 4)
    box_target: Tensor  # (Q, 4)
    mask_logits: Tensor  # (Q, M, M)
    mask_target: Tensor  # (Q, M, M) 0..1


class ProposalOutputs(TypedDict):
    """What a network for segment proposals returns in training.

    S sampled places, Q of them positive.
    """

    objectness: Tensor  # (S,) logits
    objectness_target: Tensor  # (S,) 0.0 or 1.0
    mask_logits: Tensor  # (Q, M, M)
    mask_target: Tensor  # (Q, M, M) 0..1


class Outputs(TypedDict):
    """What a semantic network returns: scores at the stride of the head that made them."""

    logits: Tensor  # (N, K, h, w)
    align_corners: bool  # how they are to be resized: the weights are made for one of the two
    aux: NotRequired[Tensor]  # (N, K, h', w'), of an auxiliary head; this and the rest in training
    scales: NotRequired[list[Tensor]]  # (N, K, h', w') each, of every scale of the image
    presence: NotRequired[Tensor]  # (N, K), whether the image shows a class
    boundary: NotRequired[Tensor]  # (N, 1, h', w'), whether classes meet nearby


class Queries(TypedDict):
    """What a mask classification network says of images: Q masks each, and the class of each."""

    class_logits: Tensor  # (N, Q, K + 1), the last one of "no object"
    mask_logits: Tensor  # (N, Q, h, w); they are resized with align_corners=False


class QueryOutputs(Queries):
    """The same in training, and what the layers before say (deep supervision)."""

    auxiliary: list[Queries]  # first layer first; without the last one


class Segments(TypedDict):
    """What a panoptic network finds in one image: every pixel is of one segment, or of none."""

    map: Tensor  # (H, W) int32: 0 of none, i of the i-th of the n segments
    labels: Tensor  # (n,) int64 train ids
    scores: Tensor  # (n,) float32 0..1
    semantic: Tensor  # (H, W) uint8, the class of every pixel by the semantic scores
    instances: Detections  # of the classes with instances, which may overlap; frames `image`


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
        notes: what was left out of them though nothing is wrong, such as an object without a pixel.
    """

    key: str
    files: Sequence[str] = ()
    patterns: Sequence[str] = ()
    faults: Sequence[str] = ()
    notes: Sequence[str] = ()


class Source(Protocol):
    """One split of a data set: random access to decoded images and their labels."""

    labelled: bool  # False where the labels are not public, as those of test splits

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What an error message or a picture calls this sample."""

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray | InstanceTarget]:
        """Image (H, W, 3) uint8 RGB, and mask (H, W) uint8 train ids or instances.

        Where classes may overlap, the mask is (H, W, B) uint8, see `segtrain.planes`; of panoptic
        sets it is (H, W, 3) uint8, see `segtrain.segments`.
        """

    def image_file(self, index: int) -> str | None:
        """The image's file as it was published; None where there is none, as of drawn images."""

    def class_counts(self, index: int) -> np.ndarray:
        """(K + 1,) int64: pixels (or instances) per class; last, void pixels (or crowds)."""

    def listing(self) -> Listing:
        """What the split consists of."""


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
