"""`shapes_multilabel`: objects and the shadows that they cast, drawn on the fly, which overlap.

One light a picture lets every object cast its shadow the same way, darker than what it falls on:
the ground, or objects that lie deeper. There a pixel is both `object` and `shadow`. There are no
void pixels.
"""

import math

import cv2
import numpy as np
from numpy.random import Generator

from segtrain.contracts import Listing
from segtrain.dataset.counts import count_labels
from segtrain.dataset.shapes import CLASSES as FIGURES
from segtrain.dataset.shapes import SPLITS, Side, draw_figure, object_colour
from segtrain.dataset.textures import texture
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.planes import pack
from segtrain.values import Natural

MOST_FIGURES = 5
LEAST_PIXELS = 40  # that an object has inside the image


class ShapesMultilabel:
    """One split of the set, held in memory once drawn; random access.

    Args:
        split: train, val or test.
        num_images: of the split.
        size: height and width in pixels.
        seed: of all splits.
        labels: `object`, `shadow` or both.
    """

    labelled = True

    def __init__(
        self, split: str, num_images: int, size: tuple[int, int], seed: int, labels: LabelSet
    ) -> None:
        self.split = split
        self.num_images = num_images
        self.size = size
        self.seed = seed
        self.labels = labels
        self._drawn: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return self.num_images

    def name(self, index: int) -> str:
        return f"shapes_multilabel/{self.split}/{index:06d}"

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) uint8 RGB and mask (H, W, B) uint8, see `segtrain.planes`."""
        if index not in self._drawn:
            rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
            image, masks = draw_scene(rng, *self.size)
            self._drawn[index] = image, pack(np.stack([masks[n] for n in self.labels.names]))
        image, mask = self._drawn[index]
        return image.copy(), mask.copy()

    def image_file(self, index: int) -> None:
        """They are drawn."""

    def class_counts(self, index: int) -> np.ndarray:
        """(K + 1,) int64 pixels per class; void last."""
        return count_labels(self.read(index)[1], self.labels)

    def listing(self) -> Listing:
        told = f"{self.split} {self.num_images} {self.size} {self.seed} {self.labels.describe()}"
        return Listing(f"shapes_multilabel {told}")


def shapes_multilabel(
    split: str,
    labels: LabelSet,
    num_images: dict[str, Natural],
    size: tuple[Side, Side],
    seed: Natural,
) -> ShapesMultilabel:
    """One split of the set as the data module asks for it.

    Raises:
        UserError: there is no such split.
    """
    if split not in num_images or split not in SPLITS:
        raise UserError(f"shapes_multilabel has no split '{split}'; expected one of "
                        f"{', '.join(num_images)}")  # fmt: skip
    return ShapesMultilabel(split, num_images[split], tuple(size), seed, labels)


def draw_scene(
    rng: Generator, height: int, width: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One picture (H, W, 3) uint8 RGB, and where its objects and shadows are, (H, W) bool each."""
    shape, side = (height, width), min(height, width)
    image = texture(rng, shape, side, rng.uniform(120, 220) + rng.uniform(-25, 25, 3))
    objects, shadows = np.zeros(shape, bool), np.zeros(shape, bool)
    angle, length = rng.uniform(0, 2 * math.pi), side * rng.uniform(0.08, 0.14)
    shift = np.float32([[1, 0, length * math.cos(angle)], [0, 1, length * math.sin(angle)]])
    darkness = rng.uniform(0.35, 0.55)
    for _ in range(rng.integers(2, MOST_FIGURES + 1)):
        label = int(rng.integers(1, len(FIGURES)))
        coverage = draw_figure(rng, label, shape)
        if np.count_nonzero(coverage >= 128) < LEAST_PIXELS:
            continue
        shadow = cv2.warpAffine(coverage, shift, (width, height))
        dark = shadow.astype(np.float32) / 255 * darkness
        image = (image * (1 - dark[..., None])).astype(np.uint8)
        surface = texture(rng, shape, side, object_colour(rng, label))
        share = coverage[..., None].astype(np.float32) / 255
        image = (surface * share + image * (1 - share)).astype(np.uint8)
        own = coverage >= 128
        shadows = (shadows | (shadow >= 128)) & ~own
        objects |= own
    noise = rng.uniform(2, 5) * rng.standard_normal(shape, np.float32)
    image = cv2.add(image, cv2.merge([noise] * 3), dtype=cv2.CV_8U)
    return image, {"object": objects, "shadow": shadows}
