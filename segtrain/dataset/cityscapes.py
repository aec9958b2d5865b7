"""Cityscapes (Cordts et al. 2016): 5,000 finely and 20,000 coarsely labelled street scenes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from segtrain.contracts import InstanceTarget, Listing
from segtrain.dataset.counts import count_labels
from segtrain.dataset.files import check_sizes, find_base, read_image, read_mask, require_folder
from segtrain.dataset.instances import target_from_masks
from segtrain.dataset.pairs import ImageMaskPairs, Pair
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.segments import CROWD, pack
from segtrain.values import Text

HINT = "leftImg8bit/ and gtFine/ are expected there; segtrain prepare dataset=cityscapes says how"
FOLDERS = {  # split -> annotation, folder of the archives
    "train": ("gtFine", "train"),
    "val": ("gtFine", "val"),
    "test": (None, "test"),
    "train_extra": ("gtCoarse", "train_extra"),
    "train_coarse": ("gtCoarse", "train"),
    "val_coarse": ("gtCoarse", "val"),
}
IDS_A_SPLIT = 100_000  # image ids are unique over the splits, which may be joined
IMAGE_END = "_leftImg8bit.png"


def cityscapes(root: Text, split: str, labels: LabelSet) -> ImageMaskPairs:
    """Images of `leftImg8bit/<folder>/<city>` with the label ids of `gtFine` or `gtCoarse`.

    Splits: train, val, test (no labels), train_extra (coarse), train_coarse and val_coarse (the
    coarse labels of train and val).

    Raises:
        UserError: a folder is missing or empty, or there is no such split.
    """
    return _list_split(root, split, labels, "labelIds")


def cityscapes_panoptic(root: Text, split: str, labels: LabelSet) -> ImageMaskPairs:
    """The same images with panoptic labels, of `instanceIds`; see `read_segments`.

    Splits and errors as of `cityscapes`.
    """
    return _list_split(root, split, labels, "instanceIds", read_segments)


def read_segments(path: str, labels: LabelSet) -> np.ndarray:
    """Labels (H, W, 3) uint8, see `segtrain.segments`, of a file of instance ids.

    Instances have the file's numbers and one more; a group of things is a crowd; labels that are
    left out of evaluations are void.

    Raises:
        UserError: see `read_mask`; or a label is not in the label map. Names the file.
    """
    ids = read_mask(path)
    found = np.flatnonzero(np.bincount(ids.ravel()))
    single = found >= 1000
    try:
        classes = labels.encode(np.where(single, found // 1000, found))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    numbers = np.where(single, found % 1000 + 1, CROWD)
    numbers[~np.isin(classes, list(labels.things))] = 0
    table = np.zeros((found[-1] + 1, 3), np.uint8)
    table[found] = pack(classes[None], numbers[None])[0]
    return table[ids]


class CityscapesInstances:
    """One split with instance targets.

    A pixel of the instance map is `label * 1000 + number` for a single object and the label alone
    for a group of them that could not be told apart, which becomes a crowd region.

    Args:
        root, split: as in `cityscapes`.
        labels: the eight classes with instances.

    Raises:
        UserError: a folder is missing or empty, or there is no such split.
    """

    def __init__(self, root: Text, split: str, labels: LabelSet) -> None:
        self.pairs = _list_split(root, split, labels, "instanceIds")
        self.first_id = list(FOLDERS).index(split) * IDS_A_SPLIT
        self.labels = labels
        self.labelled = self.pairs.labelled

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        return self.pairs.name(index)

    def read(self, index: int) -> tuple[np.ndarray, InstanceTarget]:
        """Image (H, W, 3) uint8 RGB and its instances; none where the labels are not public.

        Raises:
            UserError: a file is missing or damaged, or the sizes differ; names the file.
        """
        pair = self.pairs.pairs[index]
        image = read_image(pair.image)
        ids = read_mask(pair.mask) if pair.mask else np.zeros(image.shape[:2], np.uint16)
        check_sizes(pair.mask, ids.shape, pair.image, image.shape[:2])
        return image, self._target(ids, index)

    def image_file(self, index: int) -> str:
        return self.pairs.image_file(index)

    def class_counts(self, index: int) -> np.ndarray:
        """(K + 1,) int64 instances per class; crowds last."""
        return count_labels(
            self._target(read_mask(self.pairs.pairs[index].mask), index), self.labels
        )

    def listing(self) -> Listing:
        return self.pairs.listing()

    def _target(self, ids: np.ndarray, index: int) -> InstanceTarget:
        found = np.flatnonzero(np.bincount(ids.ravel())).tolist()
        values = [value for value in found if (value // 1000 or value) in self.labels.raw_to_train]
        masks = np.zeros((len(values), *ids.shape), np.uint8)
        for value, mask in zip(values, masks, strict=True):
            np.equal(ids, value, out=mask.view(bool))
        labels = [self.labels.raw_to_train[value // 1000 or value] for value in values]
        crowd = np.array([value < 1000 for value in values], bool)
        return target_from_masks(masks, labels, crowd, image_id=self.first_id + index)


def _list_split(
    root: str,
    split: str,
    labels: LabelSet,
    kind: str,
    decode: Callable[[str, LabelSet], np.ndarray] | None = None,
) -> ImageMaskPairs:
    base = find_base(root, ("cityscapes",), HINT)
    if split not in FOLDERS:
        raise UserError(f"cityscapes has no split '{split}'; expected one of {', '.join(FOLDERS)}")
    annotation, folder = FOLDERS[split]
    if annotation:
        require_folder(base / annotation / folder, HINT)
    images = sorted((base / "leftImg8bit" / folder).glob(f"*/*{IMAGE_END}"))
    if not images:
        raise UserError(
            f"{base / 'leftImg8bit' / folder}: no <city>/*{IMAGE_END}; "
            "segtrain prepare dataset=cityscapes says what to fetch"
        )

    def mask(image: Path) -> str:
        name = f"{image.name.removesuffix(IMAGE_END)}_{annotation}_{kind}.png"
        return str(base / str(annotation) / folder / image.parent.name / name)

    pairs = [Pair(str(image), mask(image) if annotation else "") for image in images]
    exclusive = (f"{annotation}/{folder}/*/*_{kind}.png",) if annotation else ()
    return ImageMaskPairs(pairs, labels, base, exclusive, decode=decode)
