"""PASCAL VOC 2012 segmentation (Everingham et al. 2015), in the layout of the official archive."""

from pathlib import Path

from segtrain.contracts import LabelSet
from segtrain.dataset.pairs import ImageMaskPairs, Pair, read_list, require_folder


def voc(root: str, split: str, labels: LabelSet) -> ImageMaskPairs:
    """`VOCdevkit/VOC2012` under the root (or the root itself): SegmentationClass palette PNGs and
    the official lists in ImageSets/Segmentation.

    Raises:
        UserError: the folder or list is missing or empty.
    """
    folder = Path(root) / "VOCdevkit" / "VOC2012"
    if not folder.is_dir():
        folder = require_folder(
            Path(root),
            "extract VOCtrainval_11-May-2012.tar there (it makes VOCdevkit/VOC2012); "
            "set SEGTRAIN_DATA or dataset.source.root",
        )
    names = read_list(folder / "ImageSets" / "Segmentation" / f"{split}.txt")
    pairs = [
        Pair(
            str(folder / "JPEGImages" / f"{name}.jpg"),
            str(folder / "SegmentationClass" / f"{name}.png"),
        )
        for name in names
    ]
    return ImageMaskPairs(pairs, labels, folder)
