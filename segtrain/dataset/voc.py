"""PASCAL VOC 2012 segmentation (Everingham et al. 2015) with the masks of SBD (Hariharan et al.
2011), both in the layout of their official archives."""

from pathlib import Path

from segtrain.contracts import LabelSet
from segtrain.dataset.files import find_base, read_list
from segtrain.dataset.pairs import ImageMaskPairs, Pair
from segtrain.errors import UserError

HINT = "segtrain prepare dataset=voc downloads VOC 2012 there (it makes VOCdevkit/VOC2012)"
TRAINAUG = 10582  # images of the complete set


def voc(root: str, split: str, labels: LabelSet) -> ImageMaskPairs:
    """`VOCdevkit/VOC2012` under the root (or the root itself) and, for `trainaug`, SBD.

    `train`, `val`, `trainval` and `test` are the official lists in ImageSets/Segmentation; test has
    no masks. `trainaug` is VOC train and all of SBD without VOC val; or a list of that name.
    Masks of trainaug come from SegmentationClass where VOC has one, else from the community's
    SegmentationClassAug, else from SBD's `benchmark_RELEASE/dataset/cls`.

    Raises:
        UserError: the folder or list is missing or empty.
    """
    base = find_base(root, ("VOCdevkit/VOC2012", "VOC2012"), HINT)
    lists = base / "ImageSets" / "Segmentation"
    if split != "trainaug":
        names = read_list(lists / f"{split}.txt")
        folder = "" if split == "test" else base / "SegmentationClass"
        pairs = [
            Pair(str(base / f"JPEGImages/{name}.jpg"), str(folder and folder / f"{name}.png"))
            for name in names
        ]
        return ImageMaskPairs(pairs, labels, base, ("SegmentationClass/*.png",))
    sbd = Path(root) / "benchmark_RELEASE" / "dataset"
    names = trainaug_names(lists, sbd)
    masks = trainaug_masks(base, sbd)
    sbd_images = {path.stem for path in (sbd / "img").glob("*.jpg")} if sbd.is_dir() else set()
    voc_images = {path.stem for path in (base / "JPEGImages").glob("*.jpg")}
    pairs = []
    for name in names:
        folder = sbd / "img" if name in sbd_images - voc_images else base / "JPEGImages"
        default = base / "SegmentationClass" / f"{name}.png"  # where a missing mask is reported
        pairs.append(Pair(str(folder / f"{name}.jpg"), str(masks.get(name, default))))
    return ImageMaskPairs(pairs, labels, Path(root))


def trainaug_names(lists: Path, sbd: Path) -> list[str]:
    """Ids of the augmented training set: (VOC train + SBD train + SBD val) - VOC val.

    Raises:
        UserError: neither a list nor SBD is there, or complete lists do not give 10,582 ids.
    """
    if (lists / "trainaug.txt").is_file():
        return read_list(lists / "trainaug.txt")
    if not sbd.is_dir():
        raise UserError(
            f"trainaug needs SBD: neither {lists / 'trainaug.txt'} nor {sbd} exists; "
            "segtrain prepare dataset=voc downloads SBD"
        )
    voc_train, voc_val = read_list(lists / "train.txt"), set(read_list(lists / "val.txt"))
    augmented = read_list(sbd / "train.txt") + read_list(sbd / "val.txt")
    names = sorted({*voc_train, *augmented} - voc_val)
    complete = (len(voc_train), len(voc_val), len(augmented)) == (1464, 1449, 11355)
    if complete and len(names) != TRAINAUG:
        raise UserError(
            f"{sbd}: VOC train and SBD without VOC val are {len(names)} images, expected "
            f"{TRAINAUG}; the lists are damaged"
        )
    return names


def trainaug_masks(base: Path, sbd: Path) -> dict[str, Path]:
    """Mask file of each id; a mask of VOC wins over one of SBD, which has no void borders."""
    folders = [(sbd / "cls", "*.mat"), (base / "SegmentationClassAug", "*.png"),
               (base / "SegmentationClass", "*.png")]  # fmt: skip
    return {path.stem: path for folder, pattern in folders for path in folder.glob(pattern)}
