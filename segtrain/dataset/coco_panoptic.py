"""COCO panoptic (Kirillov et al. 2019): every pixel of COCO 2017 in 80 things and 53 stuff."""

from glob import escape
from pathlib import Path

import numpy as np

from segtrain.contracts import Listing
from segtrain.dataset.files import find_base, require_folder
from segtrain.dataset.panoptic_annotations import PanopticAnnotations
from segtrain.dataset.panoptic_labels import COCO_PANOPTIC
from segtrain.dataset.segment_maps import SegmentMaps
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.values import Text

HINT = "train2017/, val2017/ and annotations/ with panoptic_*.json are expected there; segtrain " \
    "prepare dataset=coco_panoptic"  # fmt: skip
SPLITS = {  # split -> image folder, annotation file
    "train2017": ("train2017", "panoptic_train2017"),
    "val2017": ("val2017", "panoptic_val2017"),
    "test-dev2017": ("test2017", "image_info_test-dev2017"),
}


class CocoPanoptic(SegmentMaps):
    """One split; images in the order of their ids.

    Args:
        root: holds `annotations/` and the image folders, themselves or in `images/`; the PNGs are
            in `annotations/panoptic_<split>/` or in `panoptic_<split>/`.
        split: one of `SPLITS`.
        labels: the 133 classes; raw values are COCO's sparse category ids.

    Raises:
        UserError: a folder or file is missing, its categories are not COCO's, or there is no such
            split.
    """

    def __init__(self, root: Text, split: str, labels: LabelSet) -> None:
        base = find_base(root, (), HINT)
        if split not in SPLITS:
            raise UserError(f"coco_panoptic has no split '{split}'; expected one of "
                            f"{', '.join(SPLITS)}")  # fmt: skip
        folder, file = SPLITS[split]
        inside = base / "images" / folder
        images = require_folder(inside if inside.is_dir() else base / folder, HINT)
        annotations = PanopticAnnotations(base / "annotations" / f"{file}.json")
        check_categories(annotations)
        masks = find_masks(annotations.path, base) if annotations.annotated else base
        chosen = np.arange(len(annotations.image_ids))
        super().__init__(annotations, images, masks, chosen, labels)

    def listing(self) -> Listing:
        listing = super().listing()
        folders = [(self.folder, "jpg"), *([(self.masks, "png")] if self.labelled else [])]
        patterns = [f"{escape(str(folder))}/*.{ending}" for folder, ending in folders]
        # The published set shows all it names.
        return Listing(listing.key, listing.files, patterns, [*listing.faults, *listing.notes])


def find_masks(annotations: Path, base: Path) -> Path:
    """The folder of the PNGs, which is named as the JSON and lies beside it or in `base`.

    Raises:
        UserError: there is none.
    """
    beside = annotations.with_suffix("")
    return require_folder(beside if beside.is_dir() else base / beside.name, HINT)


def check_categories(annotations: PanopticAnnotations) -> None:
    """Refuses categories that are not COCO's.

    Raises:
        UserError: says which one, and what reads annotations of one's own.
    """
    for number, name in annotations.names.items():
        train = COCO_PANOPTIC.raw_to_train.get(number)
        expected = "none" if train is None else COCO_PANOPTIC.names[train]
        if annotations.annotated and name not in (expected, str(number)):
            raise UserError(
                f"{annotations.path}: category {number} is '{name}', COCO's is '{expected}'; "
                "annotations of your own are read by dataset=folder_panoptic"
            )
