"""A user's own data without code: `images/`, `masks/`, `classes.txt` and optional split lists."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from segtrain.dataset.classes import read_classes, read_labelmap
from segtrain.dataset.files import NO_JPEG, read_lines, read_list, require_folder, require_regular
from segtrain.dataset.pairs import ImageMaskPairs, Pair
from segtrain.dataset.shard_index import labels_of_shards
from segtrain.dataset.white import common_white
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.values import Positive, Text

LAYOUT = "expected images/, masks/ and classes.txt in the folder dataset.source.root"
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MASK_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
JPEG_ENDINGS = (".jpg", ".jpeg", ".JPG", ".JPEG")
VAL_SHARE = 0.2  # of the images, when there are no split lists
# Lists that may not have a name in common: what is trained on, and what it is measured by.
RIVALS = {"train": ("val", "test"), "val": ("train",), "test": ("train",)}


def folder_labels(root: Text, shards: Text | None = None) -> LabelSet:
    """Label set of a folder, or of the shards that are read instead of it.

    It is in `<root>/classes.txt` (see `read_classes`) or, where there is none, in the
    `labelmap.txt` of CVAT. A class named `void` is left out of loss and metric; where masks hold
    values, 255 is void unless it has a class.

    Raises:
        UserError: there is neither file, or it cannot be understood.
    """
    if shards is not None:
        return labels_of_shards(shards)
    base = require_folder(Path(root), LAYOUT)
    path, labelmap = base / "classes.txt", base / "labelmap.txt"
    if path.exists():
        return read_classes(path)
    if labelmap.exists():
        return read_labelmap(labelmap)
    raise UserError(f"{path}: no such file; one class name a line, or '<mask value> <name>', or "
                    "'<r>,<g>,<b> <name>' for masks that are coloured")  # fmt: skip


def folder(
    root: Text,
    split: str,
    labels: LabelSet,
    white_level: Positive | Literal["auto"] | None = "auto",
) -> ImageMaskPairs:
    """Pairs `images/<name>.*` and `masks/<name>.png` of one split, those of sub-folders too.

    `<root>/<split>.txt` (or `<root>/splits/<split>.txt`) lists names without ending, one a line, as
    `a` or `<sub-folder>/a`. Without any list a fixed fifth of the images is `val` and the rest
    `train`, chosen by a hash of the name, so that new images never move old ones across. Files that
    no list names are left alone.

    Args:
        root: the folder.
        split: train, val, or any that has a list.
        labels: its classes.
        white_level: what is white in images of more than 8 bits a channel; auto: by the largest
            value of all images of the folder, see `common_white`; null: of each file.

    Raises:
        UserError: a folder, list, image or mask is missing, no regular file or there twice; a name
            is listed twice, or to train on and to measure by; or the split is empty.
    """
    base = require_folder(Path(root), LAYOUT)
    images = by_name(require_folder(base / "images", LAYOUT), IMAGE_ENDINGS)
    masks = by_name(require_folder(base / "masks", LAYOUT), MASK_ENDINGS)
    names = split_names(base, split, sorted(images))
    if not names:
        raise UserError(f"{base}: split '{split}' is empty ({len(images)} images in images/); list "
                        f"names in train.txt and val.txt, or choose another split with "
                        f"dataset.splits.{split}=...")  # fmt: skip
    for name in names:
        if name not in images:
            hint = "; lists have names without ending" if name.endswith(IMAGE_ENDINGS) else ""
            raise UserError(f"{base / 'images'}: no image named {name} (listed in {split}){hint}")
        if name not in masks:
            raise UserError(_missing_mask(base / "masks", name, images[name]))
    pairs = [Pair(images[name], masks[name]) for name in names]
    white = common_white(sorted(images.values())) if white_level == "auto" else white_level
    return ImageMaskPairs(pairs, labels, base, white=white)


def folder_white_level(root: str) -> float | None:
    """What `white_level=auto` stands for; UserError as `folder`."""
    images = by_name(require_folder(Path(root) / "images", LAYOUT), IMAGE_ENDINGS)
    return common_white(sorted(images.values()))


def by_name(directory: Path, endings: tuple[str, ...]) -> dict[str, str]:
    """Name, with the sub-folders and without the ending -> path."""
    files: dict[str, str] = {}
    for path, relative in _walk(str(directory), ""):
        name, ending = os.path.splitext(relative)
        if ending.lower() not in endings:
            continue
        if name in files:
            raise UserError(f"{files[name]} and {path} have the same name; take one of them away")
        files[name] = path
    return files


def _walk(directory: str, inside: str) -> Iterator[tuple[str, str]]:
    """Paths of the files below a folder, and where they lie inside of it; hidden ones are not."""
    with os.scandir(directory) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.name.startswith("."):
            continue
        is_named_as_image = entry.name.lower().endswith(IMAGE_ENDINGS)
        if entry.is_dir() and not is_named_as_image:
            yield from _walk(entry.path, f"{inside}{entry.name}/")
        elif is_named_as_image:
            if not entry.is_file():
                require_regular(entry.path)
            yield entry.path, inside + entry.name


def _missing_mask(directory: Path, name: str, image: str) -> str:
    for ending in JPEG_ENDINGS:
        if (directory / f"{name}{ending}").is_file():
            return f"{directory / name}{ending}: {NO_JPEG}"
    return f"{directory}: no mask {name}.png for image {image}"


def split_names(base: Path, split: str, names: list[str]) -> list[str]:
    """The names of a split: those of its list, or a fixed share where there are no lists."""
    lists = base / "splits" if (base / "splits").is_dir() else base
    if any((lists / f"{known}.txt").exists() for known in ("train", "val", "test", split)):
        return _listed(lists, split)
    if split not in ("train", "val"):
        raise UserError(f"{base}: no list {split}.txt; without lists the splits are train and val")
    share = {name: int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32 for name in names}
    val = {name for name in names if share[name] < VAL_SHARE}
    if len(names) > 1:  # few images may all fall to one side
        val |= {min(names, key=share.__getitem__)}
        val -= {max(names, key=share.__getitem__)}
    return [name for name in names if (name in val) == (split == "val")]


def _listed(lists: Path, split: str) -> list[str]:
    path = lists / f"{split}.txt"
    count = Counter(read_list(path))
    name, times = count.most_common(1)[0]
    if times > 1:
        raise UserError(f"{path}: {name} is listed {times} times; list it once")
    for rival in RIVALS.get(split, ()):
        other = lists / f"{rival}.txt"
        both = sorted(count.keys() & read_lines(other)) if other.exists() else []
        if both:
            more = f" and {len(both) - 1} more" if both[1:] else ""
            raise UserError(f"{both[0]}{more} stands in {path} and in {other}: a score on what was "
                            "trained on says nothing; take it out of one")  # fmt: skip
    return list(count)
