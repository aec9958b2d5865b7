"""PASCAL VOC 2012 segmentation (Everingham et al. 2015) with the masks of SBD (Hariharan et al.
2011), both in the layout of their official archives."""

import logging
from pathlib import Path

from segtrain.dataset.cache import cached_folder, fingerprint
from segtrain.dataset.files import find_base, read_list
from segtrain.dataset.pairs import ImageMaskPairs, Pair
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.terminal import track
from segtrain.values import Text

logger = logging.getLogger("segtrain")

HINT = "segtrain prepare dataset=voc downloads VOC 2012 there (it makes VOCdevkit/VOC2012)"
TRAINAUG = 10582  # images of the complete set
HARD = ("bicycle", "chair", "diningtable", "pottedplant", "sofa")  # arXiv 1706.05587, section 4.1


def voc(root: Text, split: str, labels: LabelSet) -> ImageMaskPairs:
    """`VOCdevkit/VOC2012` under the root (or the root itself) and, under the root, SBD.

    `train`, `val`, `trainval` and `test` are the official lists in ImageSets/Segmentation; test has
    no masks. Any other list that lies there (FCN's seg11valid.txt) is a split of its name. Besides:

    `trainaug`: VOC train and all of SBD without VOC val; or a list of that name.
    `sbd_train`, `sbd_val`: the lists, images and masks of SBD alone.
    `val_without_sbd`: VOC val without SBD train, to test what was trained on the latter.
    `<split>_hard`: the images of a split that show one of the classes HARD; found once, cached.

    Raises:
        UserError: the folder or list is missing or empty.
    """
    base = find_base(root, ("VOCdevkit/VOC2012", "VOC2012"), HINT)
    lists = base / "ImageSets" / "Segmentation"
    sbd = Path(root) / "benchmark_RELEASE" / "dataset"
    if split == "trainaug":
        return trainaug(Path(root), base, sbd, labels)
    derived = not (lists / f"{split}.txt").is_file()
    if derived and split in ("sbd_train", "sbd_val"):
        names = sbd_names(sbd, split.removeprefix("sbd_"), split)
        pairs = [Pair(str(sbd / f"img/{name}.jpg"), str(sbd / f"cls/{name}.mat")) for name in names]
        return ImageMaskPairs(pairs, labels, root)
    if derived and split.endswith("_hard"):
        return hard_images(voc(root, split.removesuffix("_hard"), labels), split, labels)
    if derived and split == "val_without_sbd":
        names = val_names_without_sbd(lists, sbd)
    else:
        names = read_list(lists / f"{split}.txt")
    folder = "" if split == "test" else base / "SegmentationClass"
    pairs = [
        Pair(str(base / f"JPEGImages/{name}.jpg"), str(folder and folder / f"{name}.png"))
        for name in names
    ]
    return ImageMaskPairs(pairs, labels, base, ("SegmentationClass/*.png",))


def trainaug(root: Path, base: Path, sbd: Path, labels: LabelSet) -> ImageMaskPairs:
    """Masks come from SegmentationClass where VOC has one, else from the community's
    SegmentationClassAug, else from SBD's `cls`; images from VOC where it has them.

    Raises:
        UserError: see `trainaug_names`.
    """
    names = trainaug_names(base / "ImageSets" / "Segmentation", sbd)
    masks = trainaug_masks(base, sbd)
    sbd_images = {path.stem for path in (sbd / "img").glob("*.jpg")} if sbd.is_dir() else set()
    voc_images = {path.stem for path in (base / "JPEGImages").glob("*.jpg")}
    pairs = []
    for name in names:
        folder = sbd / "img" if name in sbd_images - voc_images else base / "JPEGImages"
        default = base / "SegmentationClass" / f"{name}.png"  # where a missing mask is reported
        pairs.append(Pair(str(folder / f"{name}.jpg"), str(masks.get(name, default))))
    return ImageMaskPairs(pairs, labels, root)


def sbd_names(sbd: Path, name: str, split: str) -> list[str]:
    """Ids of SBD's list `name`.

    Raises:
        UserError: SBD is not there; says that `split` needs it.
    """
    if not sbd.is_dir():
        raise UserError(
            f"{split} needs SBD: {sbd} does not exist; segtrain prepare dataset=voc downloads SBD"
        )
    return read_list(sbd / f"{name}.txt")


def val_names_without_sbd(lists: Path, sbd: Path) -> list[str]:
    """Ids of VOC val that SBD train does not hold.

    Raises:
        UserError: a list is missing, or there is no such id.
    """
    known = set(sbd_names(sbd, "train", "val_without_sbd"))
    names = [name for name in read_list(lists / "val.txt") if name not in known]
    if not names:
        raise UserError(f"val_without_sbd is empty: {sbd / 'train.txt'} lists all of VOC val")
    return names


def hard_images(source: ImageMaskPairs, split: str, labels: LabelSet) -> ImageMaskPairs:
    """The part of a split whose masks show a class of HARD.

    Args:
        source: the whole split.
        split: name of the part.
        labels: VOC's classes.

    Raises:
        UserError: the masks are not public, one is faulty, or none shows such a class.
    """
    if not source.labelled:
        raise UserError(f"split '{split}': its images have no public masks to choose them by")
    classes = [labels.names.index(name) for name in HARD]

    def build(folder: Path) -> None:
        logger.info("classes     looking for %s in %d images, once", ", ".join(HARD), len(source))
        names = [
            source.name(index)
            for index in track(range(len(source)), len(source), "looking for classes")
            if source.class_counts(index)[classes].any()
        ]
        if not names:
            raise UserError(f"split '{split}' is empty: no image shows {', '.join(HARD)}")
        (folder / "images.txt").write_text("\n".join(names))

    folder = cached_folder(f"hard/voc-{split}", fingerprint(source.listing()), build)
    names = set(read_list(folder / "images.txt"))
    pairs = [pair for index, pair in enumerate(source.pairs) if source.name(index) in names]
    return ImageMaskPairs(pairs, labels, source.root)


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
