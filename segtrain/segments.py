"""Panoptic labels: a byte of the class beside two of the instance's number, a pixel.

As (H, W, 3) uint8 they go through flips, scales, crops and padding as a map of one label a pixel
does. Byte 0 is the train id, VOID where a pixel counts nowhere; bytes 1 and 2 are the number of the
instance, low byte first: 0 of stuff, and of classes whose instances nobody told apart; from 1 on of
instances; CROWD of a region of many. So padding with VOID throughout is void.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from segtrain.label_set import VOID

CROWD = 2**16 - 1  # the number of the pixels of a crowd, which is no example to learn from
MOST = CROWD - 1  # instances of a class in an image


class TrueSegments(NamedTuple):
    """The n segments of one image."""

    masks: Tensor  # (n, H, W) bool, disjoint
    labels: Tensor  # (n,) int64 train ids
    crowd: Tensor  # (n,) bool


class SegmentMap(NamedTuple):
    """The n segments of one image, without a mask for each."""

    map: Tensor  # (H, W) int64: 0 of void pixels, i of the i-th segment
    labels: Tensor  # (n,) int64 train ids
    crowd: Tensor  # (n,) bool


def pack(classes: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Train ids (H, W) uint8 and numbers of instances (H, W) of 0..CROWD -> (H, W, 3) uint8."""
    low, high = numbers & 255, numbers >> 8
    return np.dstack([classes, low.astype(np.uint8), high.astype(np.uint8)])


def numbers_of(packed: np.ndarray) -> np.ndarray:
    """(H, W) int32 numbers of the instances of (H, W, 3) uint8; those of void mean nothing."""
    return packed[..., 1].astype(np.int32) | packed[..., 2].astype(np.int32) << 8


def keys(mask: Tensor) -> Tensor:
    """One int32 a pixel that tells segments apart, class * 2**16 + number.

    Args:
        mask: (..., H, W, 3) uint8 as packed here; or (..., H, W) uint8 train ids of a semantic set,
            for which pass `mask[..., None]`.

    Returns:
        (..., H, W) int32; those of void pixels are VOID * 2**16 and more.
    """
    channels = mask.unbind(-1)
    number = channels[1].int() + (channels[2].int() << 8) if len(channels) == 3 else 0
    return (channels[0].int() << 16) + number


def unpack(mask: Tensor) -> TrueSegments:
    """One image's labels -> its segments, by class and then by number; void is of none.

    Args:
        mask: (H, W, 3) uint8 as packed here, or (H, W) uint8 train ids, whose segments are the
            classes.
    """
    own = keys(mask if mask.ndim == 3 else mask[..., None])
    found = own.unique()
    found = found[found < VOID << 16]
    return TrueSegments(own == found.view(-1, 1, 1), (found >> 16).long(), found & CROWD == CROWD)


def index(mask: Tensor) -> SegmentMap:
    """One image's labels (H, W, 3) -> the segment of each pixel; see `unpack` for their order."""
    void = VOID << 16
    own = keys(mask).clamp(max=void)
    found, place = own.unique(return_inverse=True)
    found = found[found < void]
    return SegmentMap((place + 1) * (own < void), (found >> 16).long(), found & CROWD == CROWD)


def count_segments(packed: np.ndarray, num_classes: int) -> np.ndarray:
    """(K + 1,) int64 pixels per class of (H, W, 3); last, void ones."""
    counts = np.bincount(packed[..., 0].ravel(), minlength=256)
    return np.append(counts[:num_classes], counts[VOID])


def id_colours(ids: np.ndarray) -> np.ndarray:
    """Numbers of segments (H, W) -> (H, W, 3) uint8 RGB, R + 256 G + 256² B, as COCO's format."""
    return np.dstack([(ids >> shift & 255).astype(np.uint8) for shift in (0, 8, 16)])
