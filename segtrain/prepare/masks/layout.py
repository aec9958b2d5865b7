"""Which masks belong to which image in a folder, whatever the tool that wrote it calls them."""

import logging
import os
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from segtrain.dataset.folder import IMAGE_ENDINGS
from segtrain.errors import UserError
from segtrain.prepare.exports.finder import SPLITS
from segtrain.text import shortened

MASK_FOLDERS = {
    "masks", "mask", "labels", "label", "annotations", "annotation", "annot", "annots", "gt",
    "groundtruth", "ground_truth", "segmentation", "segmentations", "seg", "segmentationclass",
    "masks_machine", "targets",
}  # fmt: skip
IMAGE_FOLDERS = {
    "images", "image", "img", "imgs", "jpegimages", "photos", "pictures", "frames", "leftimg8bit",
    "inputs", "src", "data",
}  # fmt: skip
# Of instances, or drawn for people.
OTHER_FOLDERS = {"segmentationobject", "instances", "masks_human", "masks_instances", "previews",
                 "visualization", "visualizations", "overlays"}  # fmt: skip
MASK_AFFIX = re.compile(
    r"^(?:masks?|gt|label|seg)[_-]"
    r"|[_-](?:masks?|labels?|gt|seg|segmentation|annotation|labelids?|L)$",
    re.IGNORECASE,
)
IMAGE_AFFIX = re.compile(
    r"^(?:image|img|im)[_-]|[_-](?:image|img|im|leftimg8bit|rgb)$", re.IGNORECASE
)


NAMED = 5  # of the files that are left out

logger = logging.getLogger("segtrain")


class Labelled(NamedTuple):
    """An image and its masks.

    Args:
        name: of the image within its split, without ending.
        image: its file.
        split: that its folder names, or None.
        masks: class -> the file that shows it; the only one is at None where it shows all classes.
    """

    name: str
    image: Path
    split: str | None
    masks: dict[str | None, Path]


class _Place(NamedTuple):
    """A file by its place: what is left of its folders, and its name without affixes."""

    file: Path
    split: str | None
    folders: tuple[str, ...]
    stem: str  # as it is
    bare: str  # without what marks it as image or mask
    is_mask: bool


def find_labelled(root: Path) -> list[Labelled]:
    """Images with their masks, by name; those without a mask are left out.

    Raises:
        UserError: an image has several masks of all classes, or two images have one name.
    """
    places = [place for file in _files(root) if (place := _place(root, file)) is not None]
    places = _with_marked(places)
    masks = [place for place in places if place.is_mask]
    if not masks:
        return []
    images = _by_key([place for place in places if not place.is_mask])
    found: dict[Path, dict[str | None, Path]] = defaultdict(dict)
    left: list[Path] = []
    for mask in masks:
        image, label = _owner(mask, images)
        if image is None:
            left.append(mask.file)
            continue
        if label in found[image.file]:
            raise UserError(f"{found[image.file][label]} and {mask.file} are both masks of "
                            f"{image.file}; take one of them away")  # fmt: skip
        found[image.file][label] = mask.file
    labelled = [
        Labelled("/".join([*place.folders, place.stem]), place.file, place.split, found[place.file])
        for place in places
        if place.file in found
    ]
    _tell("masks", "image", left)
    _tell("images", "mask", [place.file for place in images.values() if place.file not in found])
    for one in labelled:
        if None in one.masks and len(one.masks) > 1:
            raise UserError(
                f"{one.image}: has a mask of all classes, {one.masks[None]}, and others of one each"
            )
    return labelled


def _tell(kind: str, other: str, files: list[Path]) -> None:
    """That files were left out."""
    names = sorted({file.name for file in files})
    if names:
        logger.warning("%-11s %d without %s %s left out: %s", kind, len(names),
                       "an" if other == "image" else "a", other,
                       shortened(names, NAMED))  # fmt: skip


def _files(root: Path) -> list[Path]:
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(folder, name)
            for name in sorted(names)
            if name.lower().endswith(IMAGE_ENDINGS) and not name.startswith(".")
        ]
    return found


def _place(root: Path, file: Path) -> _Place | None:
    split, is_mask, is_image, rest = None, False, False, []
    for part in file.relative_to(root).parts[:-1]:
        lower = part.lower()
        of_split = re.fullmatch(r"(train|val|test)(?:annot|_?masks?|_?labels?)", lower)
        if lower in OTHER_FOLDERS:
            return None
        if of_split:  # SegNet's trainannot
            split, is_mask = of_split[1], True
        elif lower in SPLITS and split is None:
            split = SPLITS[lower]
        elif lower in MASK_FOLDERS and not is_image:
            is_mask = True
        elif lower in IMAGE_FOLDERS and not is_mask:
            is_image = True
        else:
            rest.append(part)
    stem = file.stem
    bare = (MASK_AFFIX if is_mask else IMAGE_AFFIX).sub("", stem) or stem
    return _Place(file, split, tuple(rest), stem, bare, is_mask)


def _with_marked(places: list[_Place]) -> list[_Place]:
    """The places; those whose name alone says so, beside an image of that name, are masks too."""
    known = {(p.split, p.folders, name) for p in places for name in (p.stem, p.bare)}
    found = []
    for place in places:
        bare = MASK_AFFIX.sub("", place.stem)
        marked = bare not in ("", place.stem) and (place.split, place.folders, bare) in known
        found.append(place._replace(bare=bare, is_mask=True) if marked else place)
    return found


def _by_key(images: list[_Place]) -> dict[tuple, _Place]:
    """Images by split, folders and name; a name in several places is found by those alone.

    Raises:
        UserError: two images of one place have one name.
    """
    keyed: dict[tuple, _Place] = {}
    for image in images:
        first = keyed.setdefault((image.split, image.folders, image.stem), image)
        if first is not image:
            raise UserError(f"{first.file} and {image.file} have the same name; take one of them "
                            "away")  # fmt: skip
    for image in images:
        keyed.setdefault((image.split, image.folders, image.bare), image)
    loose: dict[tuple, list[_Place]] = defaultdict(list)
    for image in images:
        for name in {image.stem, image.bare}:
            loose[(None, None, name)].append(image)
    return keyed | {key: places[0] for key, places in loose.items() if len(places) == 1}


def _owner(mask: _Place, images: dict[tuple, _Place]) -> tuple[_Place | None, str | None]:
    """The image of a mask, and the class that it shows alone, or None for all classes."""
    folders = mask.folders
    for name in (mask.stem, mask.bare):
        if image := images.get((mask.split, folders, name)):
            return image, None
    if folders:
        for name in (mask.stem, mask.bare):  # masks/<class>/<image>
            if image := images.get((mask.split, folders[:-1], name)):
                return image, folders[-1]
        if image := images.get((mask.split, folders[:-1], folders[-1])):  # masks/<image>/<class>
            return image, mask.stem
    for (split, where, name), image in images.items():  # <image>_<class>
        if (split, where) == (mask.split, folders) and mask.stem.startswith(
            (f"{name}_", f"{name}-")
        ):
            return image, mask.stem[len(name) + 1 :]
    for name in (mask.stem, mask.bare):
        if image := images.get((None, None, name)):
            return image, None
    return None, None
