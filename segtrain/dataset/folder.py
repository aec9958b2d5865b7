"""A user's own data without code: `images/`, `masks/`, `classes.txt` and optional split lists."""

import hashlib
from pathlib import Path

from segtrain.contracts import LabelSet
from segtrain.dataset.files import read_list, require_folder
from segtrain.dataset.labels import voc_colour_map
from segtrain.dataset.pairs import ImageMaskPairs, Pair
from segtrain.dataset.shard_index import labels_of_shards
from segtrain.errors import UserError
from segtrain.values import Text

LAYOUT = "expected images/, masks/ and classes.txt in the folder dataset.source.root"
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MASK_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
VAL_SHARE = 0.2  # of the images, when there are no split lists


def folder_labels(root: Text, shards: Text | None = None) -> LabelSet:
    """Label set of `<root>/classes.txt`, or of the shards that are read instead of the folder.

    One class a line. Either plain names (mask values 0, 1, 2, ... in that order), or every line
    `<mask value> <name>`, as for binary masks: `0 background` and `255 object`. A class named
    `void` is left out of loss and metric; without one, mask value 255 is void.

    Raises:
        UserError: the file is missing, a class or a value stands twice, or only void is left.
    """
    if shards is not None:
        return labels_of_shards(shards)
    path = require_folder(Path(root), LAYOUT) / "classes.txt"
    if not path.is_file():
        raise UserError(f"{path}: no such file; one class name a line, or '<mask value> <name>'")
    lines = read_list(path)
    numbered = all(line.split()[0].isdigit() and len(line.split()) > 1 for line in lines)
    entries = [
        (int(line.split(maxsplit=1)[0]), line.split(maxsplit=1)[1]) if numbered else (index, line)
        for index, line in enumerate(lines)
    ]
    values, classes = [value for value, _ in entries], [name for _, name in entries]
    for kind, found in (("mask value", values), ("class", classes)):
        twice = sorted({str(entry) for entry in found if found.count(entry) > 1})
        if twice:
            raise UserError(f"{path}: {kind} {', '.join(twice)} stands more than once")
    names = tuple(name for name in classes if name != "void")
    if not names or max(values) > 65535:
        raise UserError(f"{path}: needs at least one class besides void and values up to 65535")
    raw_to_train: dict[int, int | None] = {
        value: None if name == "void" else names.index(name) for value, name in entries
    }
    raw_to_train.setdefault(255, None)
    return LabelSet(names, voc_colour_map(len(names)), raw_to_train)


def folder(root: Text, split: str, labels: LabelSet) -> ImageMaskPairs:
    """Pairs `images/<name>.*` and `masks/<name>.png` of one split.

    `<root>/<split>.txt` (or `<root>/splits/<split>.txt`) lists names without ending, one a line.
    Without any list a fixed fifth of the images is `val` and the rest `train`, chosen by a hash of
    the name, so that new images never move old ones across.

    Raises:
        UserError: a folder, list, image or mask is missing, or the split is empty.
    """
    base = require_folder(Path(root), LAYOUT)
    images = _by_stem(require_folder(base / "images", LAYOUT), IMAGE_ENDINGS)
    masks = _by_stem(require_folder(base / "masks", LAYOUT), MASK_ENDINGS)
    names = _split_names(base, split, sorted(images))
    if not names:
        raise UserError(f"{base}: split '{split}' is empty ({len(images)} images in images/)")
    for name in names:
        if name not in images:
            raise UserError(f"{base / 'images'}: no image named {name} (listed in {split})")
        if name not in masks:
            raise UserError(f"{base / 'masks'}: no mask {name}.png for image {images[name]}")
    pairs = [Pair(images[name], masks[name]) for name in names]
    patterns = tuple(f"images/*{end}" for end in IMAGE_ENDINGS)
    return ImageMaskPairs(pairs, labels, base, (*patterns, *(f"masks/*{e}" for e in MASK_ENDINGS)))


def _by_stem(directory: Path, endings: tuple[str, ...]) -> dict[str, str]:
    files = (path for path in directory.iterdir() if path.suffix.lower() in endings)
    return {path.stem: str(path) for path in files}


def _split_names(base: Path, split: str, names: list[str]) -> list[str]:
    lists = base / "splits" if (base / "splits").is_dir() else base
    if any((lists / f"{known}.txt").is_file() for known in ("train", "val", "test", split)):
        return read_list(lists / f"{split}.txt")
    if split not in ("train", "val"):
        raise UserError(f"{base}: no list {split}.txt; without lists the splits are train and val")
    share = {name: int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32 for name in names}
    return [name for name in names if (share[name] < VAL_SHARE) == (split == "val")]
