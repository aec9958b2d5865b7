"""PASCAL-Context (Mottaghi et al. 2014): VOC 2010 images with labels of 459 classes, of which 59,
or 59 and background, are used."""

from segtrain.dataset.files import find_base, read_list
from segtrain.dataset.pairs import ImageMaskPairs, Pair
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.values import Text

MASKS = "SegmentationClassContext459"  # 16-bit PNGs of the 459 labels, made by `prepare`
LISTS = "ImageSets/SegmentationContext"
INSIDE = ("VOCdevkit/VOC2010", "VOC2010")
HINT = "segtrain prepare dataset=context downloads VOC 2010 there (it makes VOCdevkit/VOC2010)"


def context(root: Text, split: str, labels: LabelSet) -> ImageMaskPairs:
    """`VOCdevkit/VOC2010` under the root (or the root itself), splits `train` and `val`.

    Raises:
        UserError: the folder or list is missing, or the annotations were not converted yet.
    """
    base = find_base(root, INSIDE, HINT)
    if not (base / MASKS).is_dir():
        raise UserError(
            f"{base / MASKS}: no such folder; the annotations are converted to it once: "
            "segtrain prepare dataset=context"
        )
    names = read_list(base / LISTS / f"{split}.txt")
    pairs = [
        Pair(str(base / f"JPEGImages/{name}.jpg"), str(base / MASKS / f"{name}.png"))
        for name in names
    ]
    return ImageMaskPairs(pairs, labels, base, (f"{MASKS}/*.png",))
