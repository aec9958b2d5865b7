"""ADE20K as scene parsing has it (Zhou et al. 2017): 150 classes of the challenge of 2016."""

from segtrain.dataset.files import find_base, require_folder
from segtrain.dataset.pairs import ImageMaskPairs, Pair
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.values import Text

INSIDE = ("ADEChallengeData2016",)
HINT = "images/ and annotations/ of ADEChallengeData2016 are expected there; segtrain prepare " \
    "dataset=ade20k"  # fmt: skip


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
