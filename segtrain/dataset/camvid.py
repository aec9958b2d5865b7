"""CamVid, 11 classes (Brostow et al. 2009), in the layout of the SegNet tutorial."""

from pathlib import Path

from segtrain.contracts import LabelSet
from segtrain.dataset.pairs import ImageMaskPairs, Pair, read_list, require_folder
from segtrain.errors import UserError


def camvid(root: str, split: str, labels: LabelSet) -> ImageMaskPairs:
    """`<root>/<split>.txt` with lines `image mask`, relative to the root.

    Raises:
        UserError: the folder or list is missing, or a line does not hold two paths.
    """
    folder = require_folder(
        Path(root),
        "CamVid is expected there (train.txt, train/, trainannot/, ...); "
        "set SEGTRAIN_DATA or dataset.source.root",
    )
    pairs = []
    for number, line in enumerate(read_list(folder / f"{split}.txt"), start=1):
        paths = line.split()
        if len(paths) != 2:
            raise UserError(f"{folder / split}.txt line {number}: expected 'image mask': {line}")
        pairs.append(Pair(str(folder / paths[0]), str(folder / paths[1])))
    return ImageMaskPairs(pairs, labels, folder)
