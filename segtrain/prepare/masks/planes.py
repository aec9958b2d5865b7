"""Images and masks of any layout as a folder that `dataset=folder_multilabel` reads."""

from pathlib import Path

import numpy as np
from PIL import Image

from segtrain.dataset.files import check_sizes, read_mask, upright_size
from segtrain.dataset.folder_multilabel import ONLY, VOID
from segtrain.dataset.labels import overlapping
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.prepare.masks.classes import VOID_NAMES, class_list
from segtrain.prepare.masks.layout import Labelled
from segtrain.prepare.masks.write import (
    BACKGROUND,
    is_coloured,
    lists_with,
    masks_of_all,
    place_image,
    write_lists,
)
from segtrain.terminal import track

BACKGROUNDS = (BACKGROUND, "_background_")


def write_planes(root: Path, labelled: list[Labelled], target: Path) -> LabelSet:
    """Writes `images/`, `masks/<class>/`, `classes.txt`, and lists where splits are named.

    Masks of one class each keep their overlaps. One mask of all classes is taken apart, or shows
    the only class where it has one value besides 0.

    Args:
        root: where the lists of classes and splits lie.
        labelled: at least one.
        target: an empty folder.

    Returns:
        The classes.

    Raises:
        UserError: a mask is damaged, of another size than its image, or holds a value that no list
            names; or there is no class.
    """
    single = masks_of_all(root, labelled)
    whole = class_list(root, single) if single and not _is_binary(single) else None
    if whole is not None:
        found = list(whole.names)
    else:
        found = sorted({ONLY if name is None else name for one in labelled for name in one.masks})
    names = [n for n in found if n.lower() not in (*VOID_NAMES, *BACKGROUNDS)]
    if not names:
        raise UserError(f"{root}: its masks show {', '.join(found)} alone, and no class")
    splits: dict[str, list[str]] = {}
    for one in track(labelled, len(labelled), "converting"):
        name = place_image(one, target)
        for label, mask in _masks(one, whole).items():
            folder = VOID if label.lower() in VOID_NAMES else label
            if folder in (*names, VOID):
                drawn = target / "masks" / folder / f"{name}.png"
                drawn.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask * np.uint8(255)).save(drawn)
        for split in [one.split] if one.split else lists_with(root, one):
            splits.setdefault(split, []).append(name)
    (target / "classes.txt").write_text("".join(f"{n}\n" for n in names), encoding="utf-8")
    write_lists(splits, len(labelled), target)
    return overlapping(tuple(names))


def _masks(one: Labelled, whole: LabelSet | None) -> dict[str, np.ndarray]:
    """(H, W) bool by class; `whole` are the classes of a mask that shows all of them."""
    size = upright_size(one.image)
    masks = {}
    for label, file in one.masks.items():
        raw = read_mask(file, is_coloured(file) if whole is None else whole.colours)
        check_sizes(str(file), raw.shape, str(one.image), size)
        if whole is None:
            masks[label or ONLY] = raw != 0
            continue
        try:
            train = whole.encode(raw)
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
        masks = {name: train == number for number, name in enumerate(whole.names)}
        masks[VOID] = train == whole.ignore_index
    return masks


def _is_binary(files: list[Path]) -> bool:
    """Whether all masks together have one value besides 0."""
    values: set[int] = set()
    for file in files:
        values |= set(np.unique(read_mask(file, is_coloured(file))).tolist())
        if len(values - {0}) > 1:
            return False
    return True
