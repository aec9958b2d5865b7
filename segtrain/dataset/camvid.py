"""CamVid, 11 classes (Brostow et al. 2009), in the layout of the SegNet tutorial."""

from segtrain.dataset.files import find_base, read_list
from segtrain.dataset.pairs import ImageMaskPairs, Pair
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.values import Text

HINT = "CamVid is expected there (train.txt, train/, trainannot/, ...)"


def camvid(root: Text, split: str, labels: LabelSet) -> ImageMaskPairs:
    """`<root>/<split>.txt` with lines `image mask`: paths relative to the root, or the tutorial's
    absolute ones, of which the last two parts count.

    Raises:
        UserError: the folder or list is missing, or a line does not hold two paths.
    """
    folder = find_base(root, (), HINT)
    pairs = []
    for number, line in enumerate(read_list(folder / f"{split}.txt"), start=1):
        paths = line.split()
        if len(paths) != 2:
            raise UserError(f"{folder / split}.txt line {number}: expected 'image mask': {line}")
        if paths[0].startswith("/"):  # the tutorial's own: /SegNet/CamVid/train/x.png
            paths = ["/".join(path.split("/")[-2:]) for path in paths]
        pairs.append(Pair(str(folder / paths[0]), str(folder / paths[1])))
    exclusive = (f"{split}/*.png", f"{split}/*.jpg", f"{split}annot/*.png")
    return ImageMaskPairs(pairs, labels, folder, exclusive)
