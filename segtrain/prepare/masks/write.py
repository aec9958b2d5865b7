"""Images and masks of any layout as a folder that `dataset=folder` reads."""

import logging
from pathlib import Path

import numpy as np
from PIL import Image

from segtrain.dataset.files import check_sizes, read_lines, read_mask, upright_size
from segtrain.dataset.labels import voc_colour_map
from segtrain.errors import UserError
from segtrain.label_set import VOID, LabelSet
from segtrain.prepare.exports.finder import SPLITS
from segtrain.prepare.exports.write import link_image
from segtrain.prepare.masks.classes import VOID_NAMES, class_list
from segtrain.prepare.masks.layout import Labelled
from segtrain.terminal import track

logger = logging.getLogger("segtrain")

BACKGROUND = "background"


def write_folder(root: Path, labelled: list[Labelled], target: Path) -> LabelSet:
    """Writes `images/`, `masks/` of class numbers, `classes.txt`, and lists where splits are named.

    Images are hard links where that can be, else copies.

    Args:
        root: where the lists of classes and splits lie.
        labelled: at least one.
        target: an empty folder.

    Returns:
        The classes.

    Raises:
        UserError: a mask is damaged, of another size than its image, or holds a value that no list
            names; or there is no list, and too many values.
    """
    single = masks_of_all(root, labelled)
    labels = class_list(root, single) if single else _one_mask_a_class(labelled)
    splits: dict[str, list[str]] = {}
    for one in track(labelled, len(labelled), "converting"):
        encode = _encoded if single else _layered
        mask = encode(one, labels)
        check_sizes(str(next(iter(one.masks.values()))), mask.shape, str(one.image),
                    upright_size(one.image))  # fmt: skip
        name = place_image(one, target)
        drawn = target / "masks" / f"{name}.png"
        drawn.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(drawn)
        for split in [one.split] if one.split else lists_with(root, one):
            splits.setdefault(split, []).append(name)
    lines = [f"{number} {name}\n" for number, name in enumerate(labels.names)]
    (target / "classes.txt").write_text("".join(lines), encoding="utf-8")
    write_lists(splits, len(labelled), target)
    return labels


def masks_of_all(root: Path, labelled: list[Labelled]) -> list[Path]:
    """The masks that show all classes; none where there is one a class.

    Raises:
        UserError: there are both.
    """
    single = [one.masks[None] for one in labelled if None in one.masks]
    if single and len(single) < len(labelled):
        raise UserError(f"{root}: some images have one mask of all classes, others one a class")
    return single


def place_image(one: Labelled, target: Path) -> str:
    """Puts an image below `images/`; its name there, without ending."""
    name = f"{one.split}/{one.name}" if one.split else one.name
    place = target / "images" / f"{name}{one.image.suffix.lower()}"
    place.parent.mkdir(parents=True, exist_ok=True)
    link_image(one.image, place)
    return name


def _encoded(one: Labelled, labels: LabelSet) -> np.ndarray:
    mask = one.masks[None]
    try:
        return labels.encode(read_mask(mask, labels.colours))
    except UserError as error:
        if str(mask) in str(error):
            raise
        raise UserError(f"{mask}: {error}") from None


def _one_mask_a_class(labelled: list[Labelled]) -> LabelSet:
    """Background, and the classes by name; what is void is so everywhere."""
    names = sorted({str(label) for one in labelled for label in one.masks})
    named = [name for name in names if name.lower() not in VOID_NAMES]
    named = [
        BACKGROUND,
        *[name for name in named if name.lower() not in (BACKGROUND, "_background_")],
    ]
    if len(named) < 2:
        raise UserError(f"{labelled[0].image}: its masks show {', '.join(names)} alone")
    numbers: dict[int, int | None] = {number: number for number in range(len(named))}
    return LabelSet(tuple(named), voc_colour_map(len(named)), numbers | {VOID: None})


def _layered(one: Labelled, labels: LabelSet) -> np.ndarray:
    """One mask a class, laid over each other in the order of the names; void lies on top."""
    height, width = upright_size(one.image)
    whole = np.zeros((height, width), np.uint8)
    numbers = {name: number for number, name in enumerate(labels.names)}
    order = sorted(one.masks, key=lambda label: numbers.get(str(label), VOID))
    for label in order:
        file = one.masks[label]
        raw = read_mask(file, is_coloured(file))
        check_sizes(str(file), raw.shape, str(one.image), (height, width))
        if label in numbers:
            whole[raw != 0] = numbers[label]
        elif str(label).lower() in VOID_NAMES:
            whole[raw != 0] = VOID
    return whole


def is_coloured(file: Path) -> bool:
    """Whether an image has three colours a pixel, not numbers."""
    with Image.open(file) as image:
        return image.mode in ("RGB", "RGBA")


def lists_with(root: Path, one: Labelled) -> list[str]:
    """Splits whose list has the image, in the root or where a VOC devkit keeps them."""
    names = {one.name, one.image.name, one.image.stem, str(one.image.relative_to(root))}
    return [split for split, listed in _lists(root).items() if names & listed]


def _lists(root: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for folder in (root, root / "splits", root / "ImageSets" / "Segmentation"):
        for path in sorted(folder.glob("*.txt")):
            if path.stem.lower() in SPLITS:
                first = {line.split("\t")[0] for line in read_lines(path)}
                words = {line.split()[0] for line in first if line.split()}
                listed = first | words
                found[SPLITS[path.stem.lower()]] = listed | {Path(n).with_suffix("").as_posix()
                                                            for n in listed}  # fmt: skip
    return found


def write_lists(splits: dict[str, list[str]], count: int, target: Path) -> None:
    """Writes `train.txt`, `val.txt`, ... of names, unless a split is left to be shared out."""
    if not splits:
        return
    if not splits.get("val") or not splits.get("train"):
        logger.info("splits      only %s is there; a fixed fifth of the %d images is val",
                    ", ".join(splits) or "no split", count)  # fmt: skip
        return
    for split, names in splits.items():
        text = "".join(f"{name}\n" for name in names)
        (target / f"{split}.txt").write_text(text, encoding="utf-8")
