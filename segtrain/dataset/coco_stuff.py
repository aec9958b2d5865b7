"""COCO-Stuff (Caesar et al. 2018): every pixel of COCO images, 80 things and 91 stuff classes."""

from segtrain.dataset.files import find_base, read_list, require_folder
from segtrain.dataset.pairs import ImageMaskPairs, Pair
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.values import Text

HINT = "COCO images and stuffthingmaps/ are expected there; segtrain prepare dataset=cocostuff"
HINT_10K = "images/, annotations/ and imageLists/ are expected there; segtrain prepare " \
    "dataset=cocostuff10k"  # fmt: skip


def coco_stuff(root: Text, split: str, labels: LabelSet) -> ImageMaskPairs:
    """164k: maps in `stuffthingmaps/<split>` (or `annotations/<split>`), images of COCO 2017 in
    `<split>` or `images/<split>`; splits `train2017` and `val2017`.

    Raises:
        UserError: a folder is missing or has no map.
    """
    base = find_base(root, (), HINT)
    images, masks = (
        find_base(base, tuple(f"{parent}/{split}" for parent in parents), HINT)
        for parents in (("images", "."), ("stuffthingmaps", "annotations"))
    )
    names = sorted(path.stem for path in masks.glob("*.png"))
    if base in (images, masks) or not names:
        raise UserError(f"{base}: no images or no maps of split '{split}'; {HINT}")
    pairs = [Pair(str(images / f"{name}.jpg"), str(masks / f"{name}.png")) for name in names]
    patterns = (f"{images.relative_to(base)}/*.jpg", f"{masks.relative_to(base)}/*.png")
    return ImageMaskPairs(pairs, labels, base, patterns)


def coco_stuff_10k(root: Text, split: str, labels: LabelSet) -> ImageMaskPairs:
    """Version 1.1: `imageLists/<split>.txt` with splits `train`, `test`, `all`; labels in
    `annotations/<name>.mat`.

    Raises:
        UserError: a folder or list is missing.
    """
    base = find_base(root, (), HINT_10K)
    names = read_list(require_folder(base / "imageLists", HINT_10K) / f"{split}.txt")
    pairs = [
        Pair(str(base / f"images/{name}.jpg"), str(base / f"annotations/{name}.mat"))
        for name in names
    ]
    return ImageMaskPairs(pairs, labels, base, ("images/*.jpg", "annotations/*.mat"))
