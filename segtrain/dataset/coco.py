"""COCO (Lin et al. 2014): instances of 80 things, and the same as masks of the 21 VOC classes."""

from dataclasses import replace
from glob import escape
from pathlib import Path

import numpy as np

from segtrain.contracts import InstanceTarget, LabelSet, Listing
from segtrain.dataset.coco_annotations import CocoAnnotations
from segtrain.dataset.counts import count_labels
from segtrain.dataset.files import find_base, read_image
from segtrain.dataset.orientation import explain_turn
from segtrain.errors import UserError
from segtrain.values import Natural, Text

HINT = "train2017/, val2017/ and annotations/ are expected there; segtrain prepare dataset=coco2017"
SPLITS = {  # split -> image folder, annotation file
    "train2017": ("train2017", "instances_train2017.json"),
    "val2017": ("val2017", "instances_val2017.json"),
    "test-dev2017": ("test2017", "image_info_test-dev2017.json"),
    "train2014": ("train2014", "instances_train2014.json"),
    "val2014": ("val2014", "instances_val2014.json"),
    "minival2014": ("val2014", "instances_val2014.json"),
    "valminusminival2014": ("val2014", "instances_val2014.json"),
    "val2014_first5k": ("val2014", "instances_val2014.json"),
}  # trainval35k is train2014+valminusminival2014
# Both name the 5,000 images of minival; val2017 is the same set.
MINIVAL_FILES = ("instances_minival2014.json", "instances_val2017.json")
VOC_OF_COCO = {  # category id of COCO -> train id of VOC
    5: 1, 2: 2, 16: 3, 9: 4, 44: 5, 6: 6, 3: 7, 17: 8, 62: 9, 21: 10, 67: 11, 18: 12, 19: 13,
    4: 14, 1: 15, 64: 16, 20: 17, 63: 18, 7: 19, 72: 20,
}  # fmt: skip


class CocoInstances:
    """One split with instance targets; images in the order of their ids.

    Args:
        root: holds `annotations/` and the image folders, themselves or in `images/`.
        split: one of `SPLITS`.
        labels: the 80 classes; raw values are COCO's sparse category ids.
        filter_empty: splits that lose their images without an instance that is no crowd.

    Raises:
        UserError: a folder or file is missing, there is no such split, or no image is left.
    """

    def __init__(self, root: Text, split: str, labels: LabelSet, filter_empty: list[Text]) -> None:
        self.labels = labels
        self.annotations, self.folder = open_split(root, split)
        self.labelled = self.annotations.annotated
        self.chosen = choose_images(self.annotations, split)
        self.lookup = _category_lookup(labels)
        if split in filter_empty:
            self.chosen = np.array([i for i in self.chosen if self._single(i)], np.int64)
        if not len(self.chosen):
            raise UserError(f"{self.annotations.path}: split '{split}' has no image")

    def __len__(self) -> int:
        return len(self.chosen)

    def name(self, index: int) -> str:
        return f"{self.folder.name}/{self.annotations.file_names[self.chosen[index]]}"

    def read(self, index: int) -> tuple[np.ndarray, InstanceTarget]:
        """Image (H, W, 3) uint8 RGB and its instances, crowds included.

        Raises:
            UserError: the file is missing or damaged, its size is not the annotated one, or a
                category id is not in the label map; names file and value.
        """
        number = self.chosen[index]
        image = _read_annotated(self.folder, self.annotations, number)
        part = self.annotations.instances(number)
        return image, {
            "boxes": np.array(self.annotations.boxes[part]),
            "labels": self._labels(number),
            "masks": self.annotations.masks(number),
            "crowd": np.array(self.annotations.crowds[part]),
            "area": np.array(self.annotations.areas[part]),
            "image_id": int(self.annotations.image_ids[number]),
        }

    def image_file(self, index: int) -> str:
        return str(self.folder / self.annotations.file_names[self.chosen[index]])

    def class_counts(self, index: int) -> np.ndarray:
        """(K + 1,) int64 instances per class; crowds last."""
        number = self.chosen[index]
        target = {
            "labels": self._labels(number),
            "crowd": self.annotations.crowds[self.annotations.instances(number)],
        }
        return count_labels(target, self.labels)

    def listing(self) -> Listing:
        listing = self.annotations.listing(self.folder, self.chosen, self.labels)
        return replace(listing, patterns=[f"{escape(str(self.folder))}/*.jpg"])

    def _single(self, number: int) -> bool:
        return not self.annotations.crowds[self.annotations.instances(number)].all()

    def _labels(self, number: int) -> np.ndarray:
        raw = self.annotations.categories[self.annotations.instances(number)]
        labels = self.lookup[np.minimum(raw, len(self.lookup) - 1)]
        if (labels < 0).any():
            raise UserError(
                f"{self.annotations.path}: category id {raw[labels < 0][0]} of image "
                f"{self.annotations.file_names[number]} is not in the label map: "
                f"{self.labels.describe()}"
            )
        return labels


class CocoAsVoc:
    """One split as masks of the 21 VOC classes, to pre-train on (DeepLabv3, arXiv 1706.05587, 4.1).

    Other classes are background. A pixel that two instances of VOC classes claim is void.

    Args:
        root, split: as in `CocoInstances`.
        labels: the 21 classes of VOC.
        min_area: images whose VOC classes cover no more pixels than this are left out.

    Raises:
        UserError: a folder or file is missing, there is no such split, or no image is left.
    """

    def __init__(self, root: Text, split: str, labels: LabelSet, min_area: Natural) -> None:
        self.labels = labels
        self.annotations, self.folder = open_split(root, split)
        self.labelled = self.annotations.annotated
        known = np.isin(self.annotations.categories, list(VOC_OF_COCO))
        areas = np.add.reduceat(
            np.append(np.where(known, self.annotations.areas, 0), 0), self.annotations.first[:-1]
        ) * (np.diff(self.annotations.first) > 0)  # reduceat gives empty ranges their neighbour
        chosen = choose_images(self.annotations, split)
        self.chosen = chosen[areas[chosen] > min_area]
        if not len(self.chosen):
            raise UserError(f"{self.annotations.path}: no image has {min_area} pixels of VOC")

    def __len__(self) -> int:
        return len(self.chosen)

    def name(self, index: int) -> str:
        return f"{self.folder.name}/{self.annotations.file_names[self.chosen[index]]}"

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) uint8 RGB and mask (H, W) uint8 train ids.

        Raises:
            UserError: the file is missing or damaged, or its size is not the annotated one.
        """
        number = self.chosen[index]
        return _read_annotated(self.folder, self.annotations, number), self._mask(number)

    def image_file(self, index: int) -> str:
        return str(self.folder / self.annotations.file_names[self.chosen[index]])

    def class_counts(self, index: int) -> np.ndarray:
        """(K + 1,) int64 pixels per class; void last."""
        return count_labels(self._mask(self.chosen[index]), self.labels)

    def listing(self) -> Listing:
        return self.annotations.listing(self.folder, self.chosen, self.labels)

    def _mask(self, number: int) -> np.ndarray:
        categories = self.annotations.categories[self.annotations.instances(number)]
        wanted = np.isin(categories, list(VOC_OF_COCO))
        masks = self.annotations.masks(number)[wanted]
        train = np.array([VOC_OF_COCO[category] for category in categories[wanted]], np.uint8)
        mask = (masks * train[:, None, None]).max(0, initial=0)
        mask[masks.sum(0, dtype=np.uint16) > 1] = self.labels.ignore_index
        return mask


def open_split(root: str, split: str) -> tuple[CocoAnnotations, Path]:
    """Annotations and image folder of one split.

    Raises:
        UserError: there is no such split, file or folder.
    """
    base = find_base(root, (), HINT)
    if split not in SPLITS:
        raise UserError(f"COCO has no split '{split}'; expected one of {', '.join(SPLITS)}")
    folder, file = SPLITS[split]
    inside = base / "images" / folder
    images = inside if inside.is_dir() else base / folder
    if not images.is_dir():
        raise UserError(f"{images}: no such folder; the images of COCO's '{folder}' belong there")
    return CocoAnnotations(base / "annotations" / file), images


def choose_images(annotations: CocoAnnotations, split: str) -> np.ndarray:
    """(n,) positions of the split's images among those of its annotation file.

    Raises:
        UserError: the file that tells minival is missing.
    """
    every = np.arange(len(annotations.image_ids))
    if split == "val2014_first5k":  # of the sorted ids, as FPN and DeepMask evaluate
        return every[:5000]
    if "minival" not in split:
        return every
    candidates = [annotations.path.parent / name for name in MINIVAL_FILES]
    found = [path for path in candidates if path.is_file()]
    if not found:
        raise UserError(f"{split} needs one of {' and '.join(map(str, candidates))}, which tell "
                        "the images of minival")  # fmt: skip
    inside = np.isin(annotations.image_ids, CocoAnnotations(found[0]).image_ids)
    return every[inside == (split == "minival2014")]


def _read_annotated(folder: Path, annotations: CocoAnnotations, number: int) -> np.ndarray:
    path = folder / annotations.file_names[number]
    image = read_image(path)
    height, width = annotations.sizes[number].tolist()
    if image.shape[:2] != (height, width):
        raise UserError(
            f"{path}: the image is {image.shape[1]}x{image.shape[0]} but {annotations.path} says "
            f"{width}x{height} (width x height)"
            + explain_turn(path, image.shape[:2], (height, width))
        )
    return image


def _category_lookup(labels: LabelSet) -> np.ndarray:
    """(V,) int64 table from category id to train id; -1 where there is none, as in its last."""
    table = np.full(max(labels.raw_to_train) + 2, -1, np.int64)
    for raw, train in labels.raw_to_train.items():
        table[raw] = train
    return table
