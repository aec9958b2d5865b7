"""A user's own COCO JSON without code: classes from its `categories`, for instances and masks."""

from pathlib import Path

from segtrain.dataset.annotated import AnnotatedInstances, OverlappingObjects, PaintedObjects
from segtrain.dataset.coco_annotations import CocoAnnotations
from segtrain.dataset.coco_folder import (
    choose_shared,
    find_annotations,
    find_images,
    require_whole,
)
from segtrain.dataset.labels import contiguous, overlapping, voc_colour_map
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


def _class_names(file: CocoAnnotations) -> tuple[str, ...]:
    classes = tuple(name for name in file.names.values() if is_class(name))
    if not classes:
        raise UserError(f"{file.path}: has no category besides background and void")
    return classes


def _refuse_category(file: CocoAnnotations, number: int, name: str, labels: LabelSet) -> None:
    raise UserError(f"{file.path}: category {number} '{name}' is none of the set's, which are "
                    f"{', '.join(labels.names)}; the files of all splits need the same "
                    "categories")  # fmt: skip
