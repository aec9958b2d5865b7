"""Labels of classes that may overlap: a bit a class and pixel, beside a byte that says void.

As (H, W, B) uint8 they go through flips, scales, crops and padding as a map of one label a pixel
does, eight classes a byte. Byte 0 is VOID where a pixel counts nowhere and else 0; class k is bit
k % 8 of byte 1 + k // 8. So padding with VOID throughout is void.
"""

import numpy as np
import torch
from torch import Tensor

from segtrain.label_set import VOID


def depth(num_classes: int) -> int:
    """B, the bytes a pixel."""
    return 1 + -(-num_classes // 8)


def pack(masks: np.ndarray, void: np.ndarray | None = None) -> np.ndarray:
    """Masks (K, H, W) and void (H, W), bool, or None for no void -> (H, W, B) uint8."""
    packed = np.empty((*masks.shape[1:], depth(len(masks))), np.uint8)
    packed[..., 0] = 0 if void is None else void * np.uint8(VOID)
    packed[..., 1:] = np.packbits(masks, axis=0, bitorder="little").transpose(1, 2, 0)
    return packed


def unpack(packed: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """(..., H, W, B) uint8 -> masks (..., K, H, W) and valid (..., H, W), bool.

    Masks of void pixels mean nothing.
    """
    planes = [
        (packed[..., 1 + index // 8] & (1 << index % 8)) != 0 for index in range(num_classes)
    ]
    return torch.stack(planes, -3), packed[..., 0] != VOID


def count_planes(packed: np.ndarray, num_classes: int) -> np.ndarray:
    """(K + 1,) int64 pixels per class of (H, W, B), which may overlap; void ones last."""
    masks, valid = unpack(torch.from_numpy(packed), num_classes)
    counts = (masks & valid).sum((1, 2)).tolist()
    return np.array([*counts, int((~valid).sum())], np.int64)
