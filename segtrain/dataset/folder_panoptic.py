"""A user's own panoptic data in COCO's format without code: a JSON a split and a folder of PNGs."""

from pathlib import Path

from segtrain.dataset.coco_annotations import category_numbers
from segtrain.dataset.coco_folder import (
    choose_shared,
    find_annotations,
    find_images,
    require_whole,
)
from segtrain.dataset.files import require_folder
from segtrain.dataset.labels import voc_colour_map
from segtrain.dataset.panoptic_annotations import PanopticAnnotations, read_content
from segtrain.dataset.segment_maps import SegmentMaps
from segtrain.dataset.shard_index import labels_of_shards
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.values import Natural, ProperFraction, Text

LAYOUT = "expected images/, a JSON of COCO's panoptic format a split, as train.json, and the " \
    "folder of its PNGs, as train/, in the folder dataset.source.root"  # fmt: skip
MOST_CLASSES = 254  # in masks of one byte for the class


def panoptic_labels(
    root: Text, annotations: Text | dict[str, Text] | None, shards: Text | None = None
) -> LabelSet:
    """Label set of the categories of the JSON: things and stuff, by their `isthing`.

    Args:
        root, annotations: see `folder_panoptic`.
        shards: that are read instead of the folder.

    Raises:
        UserError: the file is missing or cannot be read, has no category or too many, or does not
            say whether one is a thing.
    """
    if shards is not None:
        return labels_of_shards(shards)
    base = require_folder(Path(root), LAYOUT)
    path = find_annotations(base, annotations, None, "panoptic_")[0]
    if not path.is_file():
        raise UserError(f"{path}: no such file; {LAYOUT}")
    categories = read_content(path)["categories"]
    if not 0 < len(categories) <= MOST_CLASSES:
        raise UserError(f"{path}: {len(categories)} categories, expected 1 to {MOST_CLASSES}")
    for entry in categories:
        if entry.get("isthing") not in (0, 1):
            raise UserError(f"{path}: category {entry['id']} '{entry['name']}' has isthing "
                            f"{entry.get('isthing')!r}, expected 1 of what is counted and 0 of "
                            "stuff")  # fmt: skip
    numbers = category_numbers(path, categories)
    drawn = voc_colour_map(len(categories) + 1)[1:]
    return LabelSet(
        tuple(entry["name"] for entry in categories),
        tuple(_colour(entry) or colour for entry, colour in zip(categories, drawn, strict=True)),
        {numbers[entry["id"]]: train for train, entry in enumerate(categories)},
        things=frozenset(train for train, e in enumerate(categories) if e["isthing"]),
    )


def folder_panoptic(
    root: Text,
    split: str,
    labels: LabelSet,
    images: Text | None,
    masks: Text | None,
    annotations: Text | dict[str, Text] | None,
    val_share: ProperFraction,
    seed: Natural,
) -> SegmentMaps:
    """One split with panoptic labels.

    Args:
        root: folder of the set.
        split: a key of `annotations`, or `train` or `val` of a file that is shared out.
        labels: of `panoptic_labels`.
        images: folder that the file names are relative to, relative to the root; None for `images/`
            where there is one, and else the root.
        masks: the same of the PNGs; None for the folder beside the JSON that is called as it is,
            or `masks/`.
        annotations: the file of each split, or one file that is shared out, relative to the root;
            None for the only *.json in the root or in its `annotations/`, which is shared out, and
            where there are several for `<split>.json` or `panoptic_<split>.json`.
        val_share: share of the images that is `val` where one file is shared out.
        seed: of that choice.

    Raises:
        UserError: a file or folder is missing, something in the file is wrong (see
            `PanopticAnnotations`) or stands twice, or its categories are not those of the labels.
    """
    base = Path(root)
    folder = find_images(base, images, LAYOUT)
    path, shared = find_annotations(base, annotations, split, "panoptic_")
    file = PanopticAnnotations(path, folder)
    require_whole(file, folder)
    for number, name in file.names.items():
        train = labels.raw_to_train.get(number)
        if train is None or labels.names[train] != name:
            raise UserError(f"{path}: category {number} '{name}' is none of the set's, which are "
                            f"{', '.join(labels.names)}; the files of all splits need the same "
                            "categories")  # fmt: skip
    chosen = choose_shared(file, shared, split, val_share, seed)
    return SegmentMaps(file, folder, _find_masks(base, path, masks), chosen, labels)


def _find_masks(base: Path, annotations: Path, masks: str | None) -> Path:
    if masks is not None:
        return require_folder(base / masks, LAYOUT)
    candidates = annotations.with_suffix(""), base / annotations.stem, base / "masks"
    found = [folder for folder in candidates if folder.is_dir()]
    if not found:
        raise UserError(f"{annotations}: no folder with its PNGs, none of "
                        f"{', '.join(map(str, candidates))}; name it, "
                        "dataset.source.masks=<folder>")  # fmt: skip
    return found[0]


def _colour(category: dict) -> tuple[int, int, int] | None:
    """The category's colour, where it has a proper one."""
    colour = category.get("color")
    if isinstance(colour, list) and len(colour) == 3 and all(
        isinstance(part, int) and 0 <= part <= 255 for part in colour
    ):  # fmt: skip
        return tuple(colour)
    return None
