"""COCO (Lin et al. 2014): instances of 80 things, and the same as masks of the 21 VOC classes."""

from dataclasses import replace
from glob import escape
from pathlib import Path

import numpy as np

from segtrain.contracts import Listing
from segtrain.dataset.annotated import AnnotatedImages, AnnotatedInstances
from segtrain.dataset.coco_annotations import CocoAnnotations
from segtrain.dataset.counts import count_labels
from segtrain.dataset.files import find_base
from segtrain.dataset.labels import COCO_CLASSES
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
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


class CocoInstances(AnnotatedInstances):
    """One split with instance targets; images in the order of their ids.

    Args:
        root: holds `annotations/` and the image folders, themselves or in `images/`.
        split: one of `SPLITS`.
        labels: the 80 classes; raw values are COCO's sparse category ids.
        filter_empty: splits that lose their images without an instance that is no crowd.

    Raises:
        UserError: a folder or file is missing, its categories are not COCO's, there is no such
            split, or no image is left.
    """

    def __init__(self, root: Text, split: str, labels: LabelSet, filter_empty: list[Text]) -> None:
        annotations, folder = open_split(root, split)
        chosen = choose_images(annotations, split)
        super().__init__(annotations, folder, chosen, labels, split in filter_empty)
        if not len(self):
            raise UserError(f"{annotations.path}: split '{split}' has no image")

    def listing(self) -> Listing:
        listing = super().listing()
        faults = [*listing.faults, *listing.notes]  # the published set shows all it names
        patterns = [f"{escape(str(self.folder))}/*.jpg"]
        return replace(listing, patterns=patterns, faults=faults, notes=())


class CocoAsVoc(AnnotatedImages):
    """One split as masks of the 21 VOC classes, to pre-train on (DeepLabv3, arXiv 1706.05587, 4.1).

    Other classes are background. A pixel that two instances of VOC classes claim is void.

    Args:
        root, split: as in `CocoInstances`.
        labels: the 21 classes of VOC.
        min_area: images whose VOC classes cover no more pixels than this are left out; None for
            none of them.

    Raises:
        UserError: as in `CocoInstances`.
    """

    def __init__(
        self, root: Text, split: str, labels: LabelSet, min_area: Natural | None
    ) -> None:
        annotations, folder = open_split(root, split)
        known = np.isin(annotations.categories, list(VOC_OF_COCO))
        areas = np.add.reduceat(
            np.append(np.where(known, annotations.areas, 0), 0), annotations.first[:-1]
        ) * (np.diff(annotations.first) > 0)  # reduceat gives empty ranges their neighbour
        chosen = choose_images(annotations, split)
        if min_area is not None:
            chosen = chosen[areas[chosen] > min_area]
        super().__init__(annotations, folder, chosen, labels)
        if not len(self):
            raise UserError(f"{annotations.path}: no image has {min_area} pixels of VOC")

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) uint8 RGB and mask (H, W) uint8 train ids.

        Raises:
            UserError: the file is missing or damaged, or its size is not the annotated one.
        """
        return self.read_image(index), self._mask(self.chosen[index])

    def class_counts(self, index: int) -> np.ndarray:
        """(K + 1,) int64 pixels per class; void last."""
        return count_labels(self._mask(self.chosen[index]), self.labels)

    def listing(self) -> Listing:
        listing = super().listing()
        return replace(listing, faults=[*listing.faults, *listing.notes], notes=())

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
        UserError: there is no such split, file or folder, or its categories are not COCO's.
    """
    base = find_base(root, (), HINT)
    if split not in SPLITS:
        raise UserError(f"COCO has no split '{split}'; expected one of {', '.join(SPLITS)}")
    folder, file = SPLITS[split]
    inside = base / "images" / folder
    images = inside if inside.is_dir() else base / folder
    if not images.is_dir():
        raise UserError(f"{images}: no such folder; the images of COCO's '{folder}' belong there. "
                        "A COCO JSON of your own is read by dataset=coco_json_instances, for "
                        "networks that label pixels by dataset=coco_json")  # fmt: skip
    annotations = CocoAnnotations(base / "annotations" / file)
    for number, name in annotations.names.items():
        if name not in (COCO_CLASSES.get(number), str(number)):  # an id where it has no name
            raise UserError(
                f"{annotations.path}: category {number} is '{name}', COCO's is "
                f"'{COCO_CLASSES.get(number, 'none')}'; annotations of your own are read by "
                "dataset=coco_json_instances (for networks that label pixels: dataset=coco_json) "
                f"dataset.source.root={root}"
            )
    return annotations, images


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
