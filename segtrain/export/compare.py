"""Whether an exported network says the same as the original, on pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from segtrain.contracts import Source
from segtrain.errors import UserError
from segtrain.picture import read_picture

REQUIRED_AGREEMENT = 0.999  # share of pixels with the same class; the last digits of float32 differ
PICTURES = 4  # of each kind
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


class Comparison(NamedTuple):
    """How far two networks agree on pictures of one size."""

    size: tuple[int, int]  # height and width
    pictures: int
    largest_difference: float | None  # of logits; None where labels are put out
    largest_logit: float | None
    label_agreement: float  # share of pixels, 0..1

    @property
    def passed(self) -> bool:
        """Whether the exported network may take the original's place."""
        return self.label_agreement >= REQUIRED_AGREEMENT

    @property
    def row(self) -> dict[str, str]:
        """Titles and texts of a table."""
        figures = {
            "largest difference": self.largest_difference,
            "largest logit": self.largest_logit,
        }
        return {
            "size": "x".join(map(str, self.size)),
            "pictures": str(self.pictures),
            **{key: "-" if value is None else f"{value:.2g}" for key, value in figures.items()},
            "same class %": f"{100 * self.label_agreement:.3f}",
        }


def compare(
    exported: Callable[[Tensor], Tensor],
    original: Callable[[Tensor], Tensor],
    pictures: list[np.ndarray],
    size: tuple[int, int],
    decide: Callable[[Tensor], Tensor] = lambda logits: logits.argmax(1),
) -> Comparison:
    """Runs both on the first picture alone, and on all others together.

    Args:
        exported: images (N, 3, H, W) uint8 RGB -> logits (N, K, H, W), or labels.
        original: the same in eager PyTorch.
        pictures: (h, w, 3) uint8 RGB, which are resized.
        size: height and width to which they are.
        decide: logits -> labels.
    """
    differences, largest, equal = [], [], []
    for batch in batches(pictures, size):
        with torch.no_grad():
            expected, got = original(batch), exported(batch)
        if got.shape != expected.shape:
            raise RuntimeError(f"shape {tuple(got.shape)}, expected {tuple(expected.shape)}")
        if expected.is_floating_point():
            differences.append((got - expected).abs().max())
            largest.append(expected.abs().max())
            got, expected = decide(got), decide(expected)
        equal.append((got == expected).flatten())
    return Comparison(
        size=size,
        pictures=len(pictures),
        largest_difference=float(max(differences)) if differences else None,
        largest_logit=float(max(largest)) if largest else None,
        label_agreement=float(torch.cat(equal).double().mean()),
    )


def batches(pictures: list[np.ndarray], size: tuple[int, int]) -> list[Tensor]:
    """Pictures (h, w, 3) resized: the first alone, and all others together (N, 3, *size)."""
    resized = [cv2.resize(p, size[::-1], interpolation=cv2.INTER_AREA) for p in pictures]
    images = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).contiguous()
    return [images[:1], images[1:]] if len(images) > 1 else [images]


def smooth_pictures() -> list[np.ndarray]:
    """PICTURES pictures (240, 320, 3) of random colours that run into one another."""
    coarse = np.random.default_rng(0).integers(0, 256, (PICTURES, 6, 8, 3), dtype=np.uint8)
    return [cv2.resize(picture, (320, 240), interpolation=cv2.INTER_CUBIC) for picture in coarse]


def read_pictures(path: Path) -> list[np.ndarray]:
    """The picture, or the first PICTURES of a folder in order of their names.

    Raises:
        UserError: there is none, or one cannot be read.
    """
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS)
        if not files:
            raise UserError(f"compare_on={path}: no picture in this folder")
    return [read_picture(file).pixels for file in files[:PICTURES]]


def sample_pictures(source: Source) -> list[np.ndarray]:
    """PICTURES pictures from all over a split, or as many as it has."""
    indices = range(0, len(source), max(1, len(source) // PICTURES))[:PICTURES]
    return [source.read(index)[0] for index in indices]
