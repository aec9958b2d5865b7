"""`shapes_instances`: the objects of the embedded set (see `shapes`), each with its own mask.

A mask is the part of an object that is seen. There are no crowds and no void pixels.
"""

import numpy as np

from segtrain.contracts import InstanceTarget, Listing
from segtrain.dataset.counts import count_labels
from segtrain.dataset.instances import target_from_masks
from segtrain.dataset.shapes import Shapes, Side, shapes
from segtrain.label_set import LabelSet
from segtrain.values import Natural


class ShapeInstances:
    """One split of the set, held in memory once drawn; random access.

    Args:
        scenes: the same split of `shapes`.
        labels: the seven classes; raw values are the class ids of `shapes`, 1 to 7.
        first_id: image id of its first image; ids are unique over the splits.
    """

    labelled = True

    def __init__(self, scenes: Shapes, labels: LabelSet, first_id: int) -> None:
        self.scenes = scenes
        self.labels = labels
        self.first_id = first_id
        self._drawn: dict[int, tuple[np.ndarray, np.ndarray, list[int]]] = {}

    def __len__(self) -> int:
        return len(self.scenes)

    def name(self, index: int) -> str:
        """The image's name, such as "shapes/train/000012"."""
        return self.scenes.name(index)

    def read(self, index: int) -> tuple[np.ndarray, InstanceTarget]:
        """Image (H, W, 3) uint8 RGB and the visible parts of its objects.

        Drawn on first use, then kept; the arrays are copies that the caller may change.
        Raises IndexError outside the split.
        """
        if index not in self._drawn:
            self._drawn[index] = self._draw(index)
        image, owner, labels = self._drawn[index]
        masks = owner == np.arange(1, len(labels) + 1, dtype=np.uint8)[:, None, None]
        image_id = self.first_id + index
        return image.copy(), target_from_masks(masks, labels, np.zeros(len(labels)), image_id)

    def image_file(self, index: int) -> None:
        """They are drawn."""

    def class_counts(self, index: int) -> np.ndarray:
        """(K + 1,) int64 instances per class; crowds last, of which there are none."""
        return count_labels(self.read(index)[1], self.labels)

    def listing(self) -> Listing:
        return Listing(f"instances of {self.scenes.listing().key}")

    def _draw(self, index: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """Image, each pixel's owner (H, W) uint8 (0, or 1 + the object's number), and train ids."""
        scene = self.scenes.scene(index)
        owner = np.zeros(scene.mask.shape, np.uint8)
        for number, visible in enumerate(scene.instances, start=1):
            owner[visible] = number
        return scene.image, owner, [self.labels.raw_to_train[raw] for raw in scene.labels.tolist()]


def shape_instances(
    split: str,
    labels: LabelSet,
    num_images: dict[str, Natural],
    size: tuple[Side, Side],
    seed: Natural,
) -> ShapeInstances:
    """One split of the set as the data module asks for it.

    `num_images` tells each split's length. Raises UserError for another split.
    """
    scenes = shapes(split, labels, num_images, size, seed)
    first_id = sum(list(num_images.values())[: list(num_images).index(split)])
    return ShapeInstances(scenes, labels, first_id)
