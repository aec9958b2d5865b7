"""ADE20K as scene parsing has it (Zhou et al. 2017): 150 classes of the challenge of 2016, and 100
of them as instances, of the challenge of 2017."""

from dataclasses import replace
from glob import escape
from pathlib import Path

import numpy as np

from segtrain.contracts import Listing
from segtrain.dataset.counts import count_labels
from segtrain.dataset.files import (
    check_sizes,
    find_base,
    read_image,
    read_mask,
    require_folder,
)
from segtrain.dataset.pairs import ImageMaskPairs, Pair, read_train_ids
from segtrain.dataset.panoptic_labels import ADE20K_THINGS
from segtrain.errors import UserError
from segtrain.label_set import VOID, LabelSet
from segtrain.segments import pack
from segtrain.values import Text

INSIDE = ("ADEChallengeData2016",)
HINT = "images/ and annotations/ of ADEChallengeData2016 are expected there; segtrain prepare " \
    "dataset=ade20k"  # fmt: skip

INSTANCES_HINT = "annotations_instance/ of http://sceneparsing.csail.mit.edu/data/" \
    "ChallengeData2017/annotations_instance.tar is expected beside annotations/; " \
    "segtrain prepare dataset=ade20k_panoptic"  # fmt: skip


def ade20k(root: Text, split: str, labels: LabelSet) -> ImageMaskPairs:
    """`ADEChallengeData2016` under the root (or the root itself); splits `training`, `validation`.

    Raises:
        UserError: a folder is missing or has no annotation.
    """
    base = find_base(root, INSIDE, HINT)
    masks = require_folder(base / "annotations" / split, HINT)
    names = sorted(path.stem for path in masks.glob("*.png"))
    if not names:
        raise UserError(f"{masks}: no annotations; {HINT}")
    pairs = [
        Pair(str(base / f"images/{split}/{name}.jpg"), str(masks / f"{name}.png")) for name in names
    ]
    exclusive = (f"images/{split}/*.jpg", f"annotations/{split}/*.png")
    return ImageMaskPairs(pairs, labels, base, exclusive)


class Ade20kPanoptic:
    """The same images with panoptic labels.

    Stuff is what `annotations/` says. Things are what `annotations_instance/` says: in its PNGs red
    is one of the 100 numbers of `ADE20K_THINGS` and green the instance, 0 where there is none; they
    lie on top. What `annotations/` calls a thing and no instance covers is void.

    Args:
        root, split: as in `ade20k`; `annotations_instance/` lies beside `annotations/`, or in the
            root.
        labels: the 150 classes.

    Raises:
        UserError: a folder is missing or has no annotation.
    """

    labelled = True

    def __init__(self, root: Text, split: str, labels: LabelSet) -> None:
        self.pairs = ade20k(root, split, labels)
        self.labels = labels
        beside = self.pairs.root / "annotations_instance" / split
        self.folder = require_folder(
            beside if beside.is_dir() else Path(root) / "annotations_instance" / split,
            INSTANCES_HINT,
        )

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        return self.pairs.name(index)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) uint8 RGB and mask (H, W, 3) uint8, see `segtrain.segments`.

        Raises:
            UserError: a file is missing or damaged, the sizes differ, or a value means nothing;
                names the file.
        """
        image, mask = read_image(self.pairs.image_file(index)), self._mask(index)
        check_sizes(self.pairs.pairs[index].mask, mask.shape[:2], self.pairs.image_file(index),
                    image.shape[:2])  # fmt: skip
        return image, mask

    def image_file(self, index: int) -> str:
        return self.pairs.image_file(index)

    def class_counts(self, index: int) -> np.ndarray:
        """(K + 1,) int64 pixels per class; void last."""
        return count_labels(self._mask(index), self.labels)

    def listing(self) -> Listing:
        listing = self.pairs.listing()
        files = [*listing.files, *map(self._instance_file, range(len(self)))]
        patterns = [*listing.patterns, f"{escape(str(self.folder))}/*.png"]
        return replace(listing, key=f"panoptic {listing.key}", files=files, patterns=patterns)

    def _instance_file(self, index: int) -> str:
        return str(self.folder / Path(self.pairs.pairs[index].mask).name)

    def _mask(self, index: int) -> np.ndarray:
        semantic, path = self.pairs.pairs[index].mask, self._instance_file(index)
        classes, colours = read_train_ids(semantic, self.labels), read_mask(path, colours=True)
        check_sizes(path, colours.shape, semantic, classes.shape)
        numbers, categories = colours >> 8 & 0xFF, colours >> 16
        is_thing = np.isin(np.arange(VOID + 1), list(self.labels.things))
        classes[is_thing[classes]] = VOID
        single = numbers > 0
        pairs = np.unique(colours[single] >> 8)  # of category and number
        unknown = [c for c in np.unique(pairs >> 8).tolist() if not 1 <= c <= len(ADE20K_THINGS)]
        if unknown:
            raise UserError(f"{path}: instances of category {unknown[0]}, expected 1 to "
                            f"{len(ADE20K_THINGS)}")  # fmt: skip
        owners, times = np.unique(pairs & 0xFF, return_counts=True)
        if (times > 1).any():
            raise UserError(f"{path}: instance {owners[times > 1][0]} is of several categories")
        table = np.append(0, ADE20K_THINGS).astype(np.uint8) - 1
        classes[single] = table[categories[single]]
        return pack(classes, numbers)
