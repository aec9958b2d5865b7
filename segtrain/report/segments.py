"""Pictures of one image's panoptic segments: true ones, those found, and what is wrong.

H x W pixels of the image, h x w of a picture, n segments found.
"""

import numpy as np
import torch

from segtrain.contracts import Segments
from segtrain.label_set import VOID, LabelSet
from segtrain.metric.panoptic import MATCH_IOU, panoptic_counts, quality
from segtrain.report.drawing import draw_segments
from segtrain.report.examples import Key
from segtrain.report.panels import EXTRA, WRONG, brought_to_size, marked
from segtrain.segments import SegmentMap, index

SEGMENT_KEYS = [Key("wrong class or none", WRONG), Key("right class, wrong segment", EXTRA)]


def draw_true_segments(
    image: np.ndarray, truth: np.ndarray, labels: LabelSet, max_side: int
) -> np.ndarray:
    """True segments over their image, things with their classes; crowds and void are striped.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: (H, W, 3) uint8, see `segtrain.segments`.
        labels: names, colours and things.
        max_side: the longer side of the picture, which may be larger than the image's.
    """
    true = index(torch.from_numpy(truth))
    crowd = true.crowd.numpy()
    captions = [
        f"{'crowd ' * c}{labels.names[label]}" if label in (labels.things or ()) else ""
        for label, c in zip(true.labels.tolist(), crowd.tolist(), strict=True)
    ]
    striped = np.append(True, crowd)
    return draw_segments(
        image, true.map.numpy(), true.labels.numpy(), captions, labels, max_side, striped
    )


def draw_found_segments(
    image: np.ndarray, found: Segments, labels: LabelSet, max_side: int
) -> np.ndarray:
    """As `draw_true_segments`, of those found, with their scores; `found` as arrays."""
    classes, scores = found["labels"].tolist(), found["scores"].tolist()
    captions = [
        f"{labels.names[label]} {score:.2f}" if label in (labels.things or ()) else ""
        for label, score in zip(classes, scores, strict=True)
    ]
    return draw_segments(image, found["map"], found["labels"], captions, labels, max_side)


def panoptic_panels(
    image: np.ndarray, truth: np.ndarray, found: Segments, labels: LabelSet, max_side: int
) -> dict[str, np.ndarray]:
    """Image, truth, prediction and errors by name, each (h, w, 3) uint8 RGB.

    Errors are pixels of another class than the truth, or of none, and those of the right class
    whose segment is not the one that matches the true one.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: (H, W, 3) uint8, see `segtrain.segments`.
        found: as arrays.
        labels: names, colours and things.
        max_side: the longer side of each picture, at most.
    """
    picture = brought_to_size(image, max_side)
    side = max(picture.shape[:2])
    true = index(torch.from_numpy(truth))
    is_matched = matched(true, found)[true.map.numpy(), found["map"]]
    kind = np.where(is_matched, 0, np.where(truth[..., 0] == class_map(found), 2, 1))
    kind[np.append(True, true.crowd.numpy())[true.map.numpy()]] = 3
    return {
        "image": picture,
        "truth": draw_true_segments(image, truth, labels, side),
        "prediction": draw_found_segments(image, found, labels, side),
        "errors": marked(picture, kind.astype(np.uint8), {1: WRONG, 2: EXTRA}, striped=3),
    }


def matched(true: SegmentMap, found: Segments) -> np.ndarray:
    """(m + 1, n + 1) bool, which of m true and n found segments are the same; first, of none.

    They have one class and overlap by more than MATCH_IOU, void left out.
    """
    own, others = true.labels.numpy(), found["labels"]
    shape = len(own) + 1, len(others) + 1
    pairs = true.map.numpy() * shape[1] + found["map"]
    shared = np.bincount(pairs.ravel(), minlength=shape[0] * shape[1]).reshape(shape)
    union = shared.sum(1, keepdims=True) + shared[1:].sum(0) - shared
    same = np.zeros(shape, bool)
    same[1:, 1:] = own[:, None] == others
    return same & (shared > MATCH_IOU * union)


def class_map(found: Segments) -> np.ndarray:
    """(H, W) uint8: the train id of each pixel's segment, VOID of none."""
    classes = np.append(VOID, found["labels"]).astype(np.uint8)
    return classes[found["map"]]


def panoptic_keys(truth: np.ndarray, found: Segments, labels: LabelSet) -> list[Key]:
    """What errors are painted with, and the classes of an image with their PQ in it."""
    true = index(torch.from_numpy(truth))
    tensors = {key: torch.from_numpy(found[key]) for key in ("map", "labels")}
    own = quality(panoptic_counts(tensors, true, labels.num_classes)).pq
    classes = [
        Key(f"{name} {100 * pq:.0f}", tuple(colour), f"PQ of {name} in this image, %")
        for name, colour, pq in zip(labels.names, labels.palette, own, strict=True)
        if pq is not None
    ]
    return [*classes, *SEGMENT_KEYS]
