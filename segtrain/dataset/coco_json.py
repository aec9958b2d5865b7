"""A user's own COCO JSON without code: classes from its `categories`, for instances and masks."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np

from segtrain.dataset.annotated import AnnotatedInstances, OverlappingObjects, PaintedObjects
from segtrain.dataset.coco_annotations import SHOWN, CocoAnnotations
from segtrain.dataset.files import require_folder
from segtrain.dataset.labels import contiguous, overlapping, voc_colour_map
from segtrain.dataset.panoptic_annotations import PanopticAnnotations
from segtrain.dataset.shard_index import labels_of_shards
from segtrain.errors import UserError
from segtrain.label_set import VOID, LabelSet
from segtrain.values import Natural, ProperFraction, Text

LAYOUT = "expected images/ and train.json, val.json or one *.json in dataset.source.root"
# Categories that are no class: what they mark is what no object covers, or counts nowhere.
BACKGROUND_NAMES = ("background", "_background_", "__background__")
VOID_NAMES = ("void", "__ignore__")
MOST_CLASSES = 253  # besides the background, in masks of one byte


def instance_labels(
    root: Text,
    images: Text | None,
    annotations: Text | dict[str, Text] | None,
    shards: Text | None = None,
) -> LabelSet:
    """Label set of the instances: each category that is neither background nor void.

    Args:
        root, images, annotations: see `coco_json_instances`.
        shards: that are read instead of the folder.

    Raises:
        UserError: the file is missing or cannot be read, or has no such category.
    """
    if shards is not None:
        return labels_of_shards(shards)
    file = _open_file(root, images, annotations, None)[0]
    classes = _class_names(file)
    raw_to_train = {
        number: classes.index(name) if is_class(name) else None
        for number, name in file.names.items()
    }
    return LabelSet(classes, voc_colour_map(len(classes) + 1)[1:], raw_to_train)


def painted_labels(
    root: Text,
    images: Text | None,
    annotations: Text | dict[str, Text] | None,
    shards: Text | None = None,
) -> LabelSet:
    """Label set of the masks painted from the objects: class 0 is the background, 255 void.

    Args:
        root, images, annotations, shards: see `instance_labels`.

    Raises:
        UserError: as there; or there are more classes than a mask can hold.
    """
    if shards is not None:
        return labels_of_shards(shards)
    file = _open_file(root, images, annotations, None)[0]
    names = ("background", *_class_names(file))
    if len(names) > MOST_CLASSES + 1:
        raise UserError(f"{file.path}: {len(names) - 1} classes, a label map holds at most "
                        f"{MOST_CLASSES} beside the background; dataset=coco_json_instances reads "
                        "any number")  # fmt: skip
    return LabelSet(names, voc_colour_map(len(names)), contiguous(names, void=VOID))


def multilabel_labels(
    root: Text, images: Text | None, annotations: Text | dict[str, Text] | None
) -> LabelSet:
    """Label set of the masks drawn class by class: each category but background and void.

    Args:
        root, images, annotations: see `instance_labels`.

    Raises:
        UserError: as there.
    """
    return overlapping(_class_names(_open_file(root, images, annotations, None)[0]))


def coco_json_instances(
    root: Text,
    split: str,
    labels: LabelSet,
    images: Text | None,
    annotations: Text | dict[str, Text] | None,
    val_share: ProperFraction,
    seed: Natural,
    filter_empty: list[Text],
) -> AnnotatedInstances:
    """One split with instance targets.

    Args:
        root: folder of the set.
        split: a key of `annotations`, or `train` or `val` of a file that is shared out.
        labels: of `instance_labels`.
        images: folder that the file names are relative to, relative to the root; None for
            `images/` where there is one, and else the root.
        annotations: the file of each split, or one file that is shared out, relative to the root;
            None for the only *.json in the root or in its `annotations/`, which is shared out, and
            where there are several for `<split>.json` or `instances_<split>.json`.
        val_share: share of the images that is `val` where one file is shared out.
        seed: of that choice.
        filter_empty: splits that lose their images without an instance that is no crowd.

    Raises:
        UserError: a file or folder is missing, something in the file is wrong (see
            `CocoAnnotations`) or stands twice, its categories are not those of the labels, or no
            image is left.
    """
    file, folder, shared = _open_file(root, images, annotations, split)
    known = {raw: labels.names[i] for raw, i in labels.raw_to_train.items() if i is not None}
    for number, name in file.names.items():
        if known.get(number) != (name if is_class(name) else None):
            _refuse_category(file, number, name, labels)
    chosen = choose_shared(file, shared, split, val_share, seed)
    source = AnnotatedInstances(file, folder, chosen, labels, split in filter_empty)
    if not len(source):
        empty = f" ({len(file.left_out)} annotations show nothing)" if file.left_out else ""
        raise UserError(f"{file.path}: split '{split}' has no image that shows an object{empty}")
    return source


def coco_json(
    root: Text,
    split: str,
    labels: LabelSet,
    images: Text | None,
    annotations: Text | dict[str, Text] | None,
    val_share: ProperFraction,
    seed: Natural,
) -> PaintedObjects:
    """One split with label maps painted from the objects (see `PaintedObjects`).

    Args:
        root, split, images, annotations, val_share, seed: see `coco_json_instances`.
        labels: of `painted_labels`.

    Raises:
        UserError: as there.
    """
    file, folder, shared = _open_file(root, images, annotations, split)
    train_ids = _train_ids(file, labels, background=0)
    chosen = choose_shared(file, shared, split, val_share, seed)
    return PaintedObjects(file, folder, chosen, labels, train_ids)


def coco_json_multilabel(
    root: Text,
    split: str,
    labels: LabelSet,
    images: Text | None,
    annotations: Text | dict[str, Text] | None,
    val_share: ProperFraction,
    seed: Natural,
) -> OverlappingObjects:
    """One split with masks drawn class by class (see `OverlappingObjects`).

    Args:
        root, split, images, annotations, val_share, seed: see `coco_json_instances`.
        labels: of `multilabel_labels`.

    Raises:
        UserError: as there.
    """
    file, folder, shared = _open_file(root, images, annotations, split)
    train_ids = _train_ids(file, labels, background=None)
    chosen = choose_shared(file, shared, split, val_share, seed)
    return OverlappingObjects(file, folder, chosen, labels, train_ids)


def _train_ids(
    file: CocoAnnotations, labels: LabelSet, background: int | None
) -> dict[int, int | None]:
    """Of each category; `background` of those of that name."""
    train_ids: dict[int, int | None] = {}
    for number, name in file.names.items():
        if not is_class(name):
            is_void = name.lower() in VOID_NAMES
            train_ids[number] = labels.ignore_index if is_void else background
        elif name in labels.names:
            train_ids[number] = labels.names.index(name)
        else:
            _refuse_category(file, number, name, labels)
    return train_ids


def is_class(name: str) -> bool:
    """Whether a category is a class, and not background or void."""
    return name.lower() not in (*BACKGROUND_NAMES, *VOID_NAMES)


def share_out(names: list[str], val_share: float, seed: int) -> list[bool]:
    """Whether each image, by its name, is `val`: those whose names have the smallest hashes.

    A new image moves at most one other across. Both parts get at least one image.

    Raises:
        UserError: the share is not between 0 and 1, or there are fewer than two images.
    """
    if not 0 < val_share < 1 or len(names) < 2:
        raise UserError(f"{len(names)} images cannot be shared out with val_share={val_share}; "
                        "two images at least and a share between 0 and 1 are needed")  # fmt: skip
    hashes = [hashlib.sha256(f"{seed} {name}".encode()).hexdigest() for name in names]
    count = min(max(round(len(names) * val_share), 1), len(names) - 1)
    last = sorted(hashes)[count - 1]
    return [value <= last for value in hashes]


def choose_shared(
    file: CocoAnnotations | PanopticAnnotations,
    shared: bool,
    split: str,
    val_share: float,
    seed: int,
) -> np.ndarray:
    """(n,) positions of a split's images in a file that is shared out; in another all.

    Raises:
        UserError: it cannot be shared out, or not to such a split.
    """
    if not shared:
        return np.arange(len(file.file_names))
    if split not in ("train", "val"):
        raise UserError(f"{file.path} is shared out to train and val; for a split '{split}' name "
                        "the file of each split in dataset.source.annotations")  # fmt: skip
    is_val = np.array(share_out(list(file.file_names), val_share, seed))
    return np.flatnonzero(is_val == (split == "val"))


def _open_file(
    root: str, images: str | None, annotations: str | dict[str, str] | None, split: str | None
) -> tuple[CocoAnnotations, Path, bool]:
    """The annotations of a split (None: any), the folder of their images, and whether they are
    those of all splits.

    Raises:
        UserError: they are missing, or anything about them is wrong.
    """
    folder = find_images(Path(root), images, LAYOUT)
    path, shared = find_annotations(Path(root), annotations, split, "instances_")
    file = CocoAnnotations(path, folder)
    require_whole(file, folder)
    return file, folder, shared


def find_images(base: Path, images: str | None, layout: str) -> Path:
    """The folder of the images: the one of that name, or `images/` where there is one, or `base`.

    Raises:
        UserError: there is no such folder; says what is expected there.
    """
    require_folder(base, layout)
    inside = base / ("images" if images is None else images)
    return base if images is None and not inside.is_dir() else require_folder(inside, layout)


def require_whole(file: CocoAnnotations | PanopticAnnotations, folder: Path) -> None:
    """Refuses annotations that something is wrong with, or whose images are not all there.

    Raises:
        UserError: names what is wrong.
    """
    path = file.path
    if not (file.annotated and file.names):
        raise UserError(f"{path}: has no list of annotations or of categories")
    names = Counter(file.file_names)
    problems = [
        *file.faults,
        *(f"{path}: file_name {name} stands {n} times" for name, n in names.items() if n > 1),
        *(f"{folder / name}: no such image file; {path} names it"
          for name in names if not (folder / name).is_file()),
    ]  # fmt: skip
    if problems or not names:
        more = [f"... and {len(problems) - SHOWN} more"] if problems[SHOWN:] else []
        raise UserError("\n  ".join([*problems[:SHOWN], *more]) or f"{path}: names no image")


def find_annotations(
    base: Path, annotations: str | dict[str, str] | None, split: str | None, begin: str
) -> tuple[Path, bool]:
    """The annotation file of a split, and whether it is that of all splits.

    Args:
        base: the data set's folder.
        annotations: see `coco_json_instances`.
        split: its name; None: of any.
        begin: that the names of files may have before the split's.

    Raises:
        UserError: none is named or found.
    """
    if isinstance(annotations, str):
        return base / annotations, True
    if annotations is not None:
        wanted = next(iter(annotations), None) if split is None else split
        if wanted not in annotations:
            raise UserError(f"dataset.source.annotations names no file of split '{wanted}', only "
                            f"of {', '.join(annotations) or 'none'}")  # fmt: skip
        return base / annotations[wanted], False
    found = [
        path for place in (base, base / "annotations") for path in sorted(place.glob("*.json"))
    ]
    if len(found) == 1:
        return found[0], True
    names = [f"{start}{split or 'train'}.json" for start in ("", begin)]
    named = [path for path in found if path.name in names]
    if not named:
        raise UserError(
            f"{base}: neither {' nor '.join(names)} is there or in annotations/ (found: "
            f"{', '.join(path.name for path in found) or 'no *.json'}); name the files, "
            "dataset.source.annotations={train: a.json, val: b.json}, or one to share out"
        )
    return named[0], False


def _class_names(file: CocoAnnotations) -> tuple[str, ...]:
    classes = tuple(name for name in file.names.values() if is_class(name))
    if not classes:
        raise UserError(f"{file.path}: has no category besides background and void")
    return classes


def _refuse_category(file: CocoAnnotations, number: int, name: str, labels: LabelSet) -> None:
    raise UserError(f"{file.path}: category {number} '{name}' is none of the set's, which are "
                    f"{', '.join(labels.names)}; the files of all splits need the same "
                    "categories")  # fmt: skip
