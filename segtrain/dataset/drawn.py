"""Sets whose pictures are drawn on the fly, each from its number alone."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from segtrain.contracts import Listing
from segtrain.dataset.counts import count_labels
from segtrain.dataset.shapes import SPLITS
from segtrain.errors import UserError
from segtrain.label_set import LabelSet

# (generator, height, width) -> image (H, W, 3) uint8 RGB and labels (H, W, B) uint8
Draw = Callable[[Generator, int, int], tuple[np.ndarray, np.ndarray]]


class DrawnScenes:
    """One split of such a set, held in memory once drawn; random access.

    Args:
        kind: the set's name.
        draw: of one picture and its labels, of several bytes a pixel.
        split: train, val or test.
        num_images: of each split.
        size: height and width in pixels.
        seed: of all splits.
        labels: the classes.

    Raises:
        UserError: there is no such split.
    """

    labelled = True

    def __init__(
        self,
        kind: str,
        draw: Draw,
        split: str,
        num_images: dict[str, int],
        size: tuple[int, int],
        seed: int,
        labels: LabelSet,
    ) -> None:
        if split not in num_images or split not in SPLITS:
            raise UserError(f"{kind} has no split '{split}'; expected one of "
                            f"{', '.join(num_images)}")  # fmt: skip
        self.kind = kind
        self.draw = draw
        self.split = split
        self.num_images = num_images[split]
        self.size = tuple(size)
        self.seed = seed
        self.labels = labels
        self._drawn: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return self.num_images

    def name(self, index: int) -> str:
        return f"{self.kind}/{self.split}/{index:06d}"

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) uint8 RGB and labels (H, W, B) uint8; copies that may be changed."""
        if index not in self._drawn:
            rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
            self._drawn[index] = self.draw(rng, *self.size)
        image, mask = self._drawn[index]
        return image.copy(), mask.copy()

    def image_file(self, index: int) -> None:
        """They are drawn."""

    def class_counts(self, index: int) -> np.ndarray:
        """(K + 1,) int64 pixels per class; void last."""
        return count_labels(self.read(index)[1], self.labels)

    def listing(self) -> Listing:
        told = f"{self.split} {self.num_images} {self.size} {self.seed} {self.labels.describe()}"
        return Listing(f"{self.kind} {told}")
