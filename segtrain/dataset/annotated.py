"""Images with COCO annotations, as instances or painted into label maps."""

from pathlib import Path

import numpy as np

from segtrain.contracts import InstanceTarget, Listing
from segtrain.dataset.coco_annotations import CocoAnnotations
from segtrain.dataset.counts import count_labels
from segtrain.dataset.files import read_image
from segtrain.dataset.orientation import explain_turn
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.planes import pack

VOID_ID, UNKNOWN_ID = -1, -2  # in place of train ids


class AnnotatedImages:
    """Some images of an annotation file: their names, files and pixels.

    Args:
        annotations: of the images and more.
        folder: that their file names are relative to.
        chosen: (n,) positions of the images among those of the file.
        labels: the classes.
    """

    def __init__(
        self, annotations: CocoAnnotations, folder: Path, chosen: np.ndarray, labels: LabelSet
    ) -> None:
        self.annotations = annotations
        self.folder = folder
        self.chosen = chosen
        self.labels = labels
        self.labelled = annotations.annotated

    def __len__(self) -> int:
        return len(self.chosen)

    def name(self, index: int) -> str:
        return f"{self.folder.name}/{self.annotations.file_names[self.chosen[index]]}"

    def image_file(self, index: int) -> str:
        return str(self.folder / self.annotations.file_names[self.chosen[index]])

    def read_image(self, index: int) -> np.ndarray:
        """Image (H, W, 3) uint8 RGB.

        Raises:
            UserError: the file is missing or damaged, or its size is not the annotated one.
        """
        path = Path(self.image_file(index))
        image = read_image(path)
        height, width = self.annotations.sizes[self.chosen[index]].tolist()
        if image.shape[:2] != (height, width):
            raise UserError(
                f"{path}: the image is {image.shape[1]}x{image.shape[0]} but "
                f"{self.annotations.path} says {width}x{height} (width x height)"
                + explain_turn(path, image.shape[:2], (height, width))
            )
        return image

    def listing(self) -> Listing:
        return Listing(
            key=f"{self.annotations.key} {self.labels.describe()}",
            files=[self.image_file(index) for index in range(len(self))],
            faults=self.annotations.faults,
            notes=self.annotations.left_out,
        )


class AnnotatedInstances(AnnotatedImages):
    """Images with instance targets.

    Args:
        annotations, folder, chosen, labels: see `AnnotatedImages`; raw values of the labels are
            category ids, and annotations of those that mean void are no instances.
        filter_empty: whether images are left out that show no instance, or crowds only.
    """

    def __init__(
        self,
        annotations: CocoAnnotations,
        folder: Path,
        chosen: np.ndarray,
        labels: LabelSet,
        filter_empty: bool,
    ) -> None:
        super().__init__(annotations, folder, chosen, labels)
        self.lookup = category_lookup(labels)
        if filter_empty:
            self.chosen = np.array([i for i in chosen if self._shows_one(i)], np.int64)

    def read(self, index: int) -> tuple[np.ndarray, InstanceTarget]:
        """Image (H, W, 3) uint8 RGB and its instances, crowds included.

        Raises:
            UserError: the file is missing or damaged, its size is not the annotated one, or a
                category id is not in the label map; names file and value.
        """
        number = self.chosen[index]
        image = self.read_image(index)
        labels, kept = self._labels(number)
        part = self.annotations.instances(number)
        return image, {
            "boxes": np.array(self.annotations.boxes[part][kept]),
            "labels": labels,
            "masks": self.annotations.masks(number)[kept],
            "crowd": np.array(self.annotations.crowds[part][kept]),
            "area": np.array(self.annotations.areas[part][kept]),
            "image_id": int(self.annotations.image_ids[number]),
        }

    def class_counts(self, index: int) -> np.ndarray:
        """(K + 1,) int64 instances per class; crowds last."""
        number = self.chosen[index]
        labels, kept = self._labels(number)
        crowd = self.annotations.crowds[self.annotations.instances(number)][kept]
        return count_labels({"labels": labels, "crowd": crowd}, self.labels)

    def _shows_one(self, number: int) -> bool:
        kept = self._labels(number)[1]
        return not self.annotations.crowds[self.annotations.instances(number)][kept].all()

    def _labels(self, number: int) -> tuple[np.ndarray, slice | np.ndarray]:
        """Train ids of the image's instances, and which of its annotations they are."""
        raw = self.annotations.categories[self.annotations.instances(number)]
        labels = self.lookup[np.minimum(raw, len(self.lookup) - 1)]
        if (labels == UNKNOWN_ID).any():
            raise UserError(
                f"{self.annotations.path}: category id {raw[labels == UNKNOWN_ID][0]} of image "
                f"{self.annotations.file_names[number]} is not in the label map: "
                f"{self.labels.describe()}"
            )
        if (labels != VOID_ID).all():
            return labels, slice(None)  # a view: no mask is copied
        return labels[labels != VOID_ID], labels != VOID_ID


class PaintedObjects(AnnotatedImages):
    """Images with label maps that are painted from their objects.

    What no object covers is background, class 0. Where objects overlap, the one that comes later in
    the file lies on top: so annotation tools draw them and write their layers down. Pixels of a
    crowd that no object claims are void, for they may show anything.

    Args:
        annotations, folder, chosen, labels: see `AnnotatedImages`.
        train_ids: train id, or `ignore_index`, of each category.
    """

    def __init__(
        self,
        annotations: CocoAnnotations,
        folder: Path,
        chosen: np.ndarray,
        labels: LabelSet,
        train_ids: dict[int, int | None],
    ) -> None:
        super().__init__(annotations, folder, chosen, labels)
        self.train_ids = train_ids

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) uint8 RGB and mask (H, W) uint8 train ids.

        Raises:
            UserError: the file is missing or damaged, or its size is not the annotated one.
        """
        return self.read_image(index), self._mask(self.chosen[index])

    def class_counts(self, index: int) -> np.ndarray:
        """(K + 1,) int64 pixels per class; void last."""
        return count_labels(self._mask(self.chosen[index]), self.labels)

    def _mask(self, number: int) -> np.ndarray:
        part = self.annotations.instances(number)
        crowds, masks = self.annotations.crowds[part], self.annotations.masks(number)
        categories = self.annotations.categories[part].tolist()
        painted = np.zeros(self.annotations.sizes[number], np.uint8)
        # Crowds lie below every object, whatever the order.
        for place in np.lexsort((self.annotations.positions[part], ~crowds)):
            train = self.labels.ignore_index if crowds[place] else self.train_ids[categories[place]]
            np.copyto(painted, train, where=masks[place].view(bool))
        return painted


class OverlappingObjects(PaintedObjects):
    """Images whose objects are drawn class by class: those of different classes may overlap.

    Pixels of a crowd that no object claims are void, as is what objects of void categories cover.

    Args:
        annotations, folder, chosen, labels: see `AnnotatedImages`.
        train_ids: train id of each category, `ignore_index`, or None for the background.
    """

    def _mask(self, number: int) -> np.ndarray:
        part = self.annotations.instances(number)
        size = self.annotations.sizes[number]
        drawn = np.zeros((self.labels.num_classes, *size), bool)
        crowd, void = np.zeros(size, bool), np.zeros(size, bool)
        objects = zip(self.annotations.categories[part].tolist(), self.annotations.crowds[part],
                      self.annotations.masks(number), strict=True)  # fmt: skip
        for category, is_crowd, mask in objects:
            train = self.train_ids[category]
            if train == self.labels.ignore_index:
                void |= mask.view(bool)
            elif is_crowd:
                crowd |= mask.view(bool)
            elif train is not None:
                drawn[train] |= mask.view(bool)
        return pack(drawn, void | (crowd & ~drawn.any(0)))


def category_lookup(labels: LabelSet) -> np.ndarray:
    """(V,) int64 table from category id to train id, `VOID_ID` or `UNKNOWN_ID`, as its last is."""
    table = np.full(max(labels.raw_to_train) + 2, UNKNOWN_ID, np.int64)
    for raw, train in labels.raw_to_train.items():
        table[raw] = VOID_ID if train is None else train
    return table
