"""What passes between the parts: samples, batches and network outputs.

Data, networks, losses and metrics import this file and not one another; `task`, `build` and `cli`
put them together.
Shapes: N batch, K classes, H x W pixels of the image, h x w cells of a feature map.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NotRequired, Protocol, TypedDict

import numpy as np
import torch.nn.functional as F
from torch import Tensor

DENSE = ("semantic", "multilabel")  # tasks whose networks score every class at every pixel
OF_PIXELS = (*DENSE, "panoptic")  # tasks whose labels are masks, cut to crops of one size


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
AnyFrames = Frames | Literal["image"]  # masks of the whole image


class Detections(TypedDict):
    """The n instances or proposals that a network finds in one image, best first."""

    boxes: Tensor  # (n, 4) float32 x1 y1 x2 y2 in pixels of the image; the frames of the masks
    scores: Tensor  # (n,) float32
    labels: Tensor  # (n,) int64 train ids; all zero for proposals
    masks: Tensor  # (n, M, M) float32 probabilities, stretched over their boxes; see `frames`
    # Of the masks: whole_pixels, unless it is said. With `image`, masks are (n, H, W) bool of the
    # whole image, and boxes are the ones around them.
    frames: NotRequired[AnyFrames]


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


def is_detector(network: object) -> bool:
    """Whether it takes images of their own sizes, and in training their objects as well.

    Other networks take one batch of images.
    """
    return getattr(network, "task", "semantic") in ("instance", "proposal")


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
