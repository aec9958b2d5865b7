"""COCO's panoptic annotations as flat arrays on disk, made once from the JSON.

The JSON says of each image which PNG shows its segments, and of each segment its id, category and
whether it is a crowd; the pixels of segment `id` have the colour R + 256 G + 65536 B = id. The
arrays are memory-mapped; processes and loader workers share one copy.
"""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from segtrain.dataset.cache import cached_folder, files_fingerprint
from segtrain.dataset.coco_annotations import (
    cache_name,
    category_numbers,
    number_images,
    refuse,
    require_values,
    twice,
    with_size,
)
from segtrain.dataset.packed import PackedStrings
from segtrain.errors import UserError
from segtrain.segments import MOST

logger = logging.getLogger("segtrain")

FORMAT = "1"  # of the arrays; another one makes them anew
MANY = 20_000  # images, whose packing takes seconds
LARGEST_SEGMENT = 2**24 - 1  # id that a colour can hold; 0 is of no segment


class PanopticAnnotations:
    """The annotated images of one file, sorted by id, and their segments.

    Where the file has no list of annotations at all, as that of a test split, the images have none.
    Ids that are texts are numbered as in `CocoAnnotations`.

    Args:
        path: a `panoptic_*.json` or `image_info_*.json`.
        images: folder whose images tell the sizes that the file does not; None where it tells all.

    Raises:
        UserError: the file is missing or not in COCO's panoptic format, or segments cannot be read;
            names each by its id and image.
    """

    def __init__(self, path: Path, images: Path | None = None) -> None:
        if not path.is_file():
            raise UserError(
                f"{path}: no such file; segtrain prepare dataset=<name> downloads the annotations"
            )
        self.path = path
        self.key = f"panoptic {FORMAT} {images or ''} {files_fingerprint([path.resolve()])}"
        name = f"{cache_name(path)}-panoptic"
        folder = cached_folder(name, self.key, lambda target: pack(path, images, target))

        def array(part: str) -> np.ndarray:
            return np.load(folder / f"{part}.npy", mmap_mode="r")

        self.image_ids = array("image_ids")  # (N,) int64
        self.sizes = array("sizes")  # (N, 2) int32 height, width
        self.first = array("first")  # (N + 1,) int64: segments first[i]..first[i+1] are image i's
        self.ids = array("ids")  # (M,) int32
        self.categories = array("categories")  # (M,) int32 category ids
        self.crowds = array("crowds")  # (M,) bool
        self.file_names = PackedStrings(())
        self.mask_names = PackedStrings(())
        for strings, part in ((self.file_names, "images"), (self.mask_names, "masks")):
            strings.data, strings.offsets = array(part), array(f"{part}_offsets")
        told = json.loads((folder / "told.json").read_text())
        self.names = {int(number): name for number, name in told["categories"]}
        self.faults: list[str] = told["faults"]  # what stands twice or belongs to nothing
        self.left_out: list[str] = told["left_out"]  # segments that show nothing
        self.annotated: bool = told["annotated"]

    def segments(self, image: int) -> slice:
        """Which of the M segments are the image's."""
        return slice(int(self.first[image]), int(self.first[image + 1]))


def pack(path: Path, folder: Path | None, target: Path) -> None:
    """Writes the arrays of one annotation file into `target`.

    Segments of area 0 are left out; they, images without annotations and what stands twice are
    named in `told.json`.

    Args:
        path: the file.
        folder: of the images; see `PanopticAnnotations`.
        target: gets the arrays.

    Raises:
        UserError: the file is not in COCO's panoptic format, or segments cannot be read.
    """
    content = read_content(path)
    categories = category_numbers(path, content["categories"])
    things = {entry["id"] for entry in content["categories"] if entry.get("isthing")}
    images = [with_size(path, folder, image) for image in content["images"]]
    numbers = number_images(images)
    faults = [f"{path}: image id {n} stands {c} times" for n, c in twice(images)]
    by_image: dict[int | str, dict | None] = {image["id"]: None for image in images}
    for entry in content["annotations"]:
        number = entry["image_id"]
        if number not in by_image:
            faults.append(f"{path}: annotation {entry['file_name']} is of no listed image")
        elif by_image[number] is not None:
            faults.append(f"{path}: image id {number} has more than one annotation")
        else:
            by_image[number] = entry
    if len(images) >= MANY:
        logger.info("annotations packing those of %d images, once", len(images))
    kept, rows, first = [], [], [0]
    refused: list[str] = []
    left_out: list[str] = []
    for image, number in zip(images, numbers, strict=True):
        entry = by_image[image["id"]]
        if entry is None and content["annotated"]:
            faults.append(f"{path}: image {image['file_name']} has no annotation")
            continue
        found = (entry or {}).get("segments_info", [])
        reasons, empty = _reasons(found, categories, things)
        refused += [f"{text} ({image['file_name']})" for text in reasons]
        left_out += [f"{path}: segment {n} of {image['file_name']} has area 0" for n in empty]
        rows += [(segment["id"], categories.get(segment["category_id"], 0),
                  bool(segment.get("iscrowd"))) for segment in found
                 if segment["id"] not in empty]  # fmt: skip
        first.append(len(rows))
        kept.append((number, image, "" if entry is None else entry["file_name"]))
    refuse(path, refused)
    ids, raw, crowds = zip(*rows, strict=True) if rows else ((), (), ())
    names = PackedStrings(image["file_name"] for _, image, _ in kept)
    masks = PackedStrings(mask for _, _, mask in kept)
    sizes = [(image["height"], image["width"]) for _, image, _ in kept]
    arrays = {
        "image_ids": np.array([number for number, _, _ in kept], np.int64),
        "sizes": np.array(sizes, np.int32).reshape(-1, 2),
        "first": np.array(first, np.int64),
        "ids": np.array(ids, np.int32),
        "categories": np.array(raw, np.int32),
        "crowds": np.array(crowds, bool),
        "images": names.data,
        "images_offsets": names.offsets,
        "masks": masks.data,
        "masks_offsets": masks.offsets,
    }
    for name, array in arrays.items():
        np.save(target / f"{name}.npy", array)
    told = {
        "categories": [(categories[e["id"]], e["name"]) for e in content["categories"]],
        "faults": faults,
        "left_out": left_out,
        "annotated": content["annotated"],
    }
    (target / "told.json").write_text(json.dumps(told))


def read_content(path: Path) -> dict[str, Any]:
    """Lists of `images`, `categories` and `annotations`, each entry with what it must have.

    Raises:
        UserError: the file is not in COCO's panoptic format.
    """
    try:
        content = json.loads(path.read_bytes())
        parts = {key: content.get(key) or [] for key in ("images", "categories", "annotations")}
        for part, keys in (
            ("images", ("id", "file_name")),
            ("categories", ("id", "name")),
            ("annotations", ("image_id", "file_name")),
        ):
            for entry in parts[part]:
                require_values(entry, part, keys)
        for entry in parts["annotations"]:
            for segment in entry["segments_info"]:
                require_values(segment, "segments_info", ("id", "category_id"))
        if not parts["images"]:
            raise ValueError("lists no images")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: not a panoptic annotation file of COCO ({error})") from None
    return {**parts, "annotated": "annotations" in content}


def _reasons(
    segments: list[dict], categories: dict[int | str, int], things: set[int | str]
) -> tuple[list[str], set[int]]:
    """Why segments of one image cannot be read; and the ids of those that show nothing."""
    reasons = []
    for segment in segments:
        number, category, crowd = segment["id"], segment["category_id"], segment.get("iscrowd")
        if not (isinstance(number, int) and 0 < number <= LARGEST_SEGMENT):
            reasons.append(f"segment id {number!r} is not in 1..{LARGEST_SEGMENT}")
        if category not in categories and categories:
            reasons.append(f"segment {number} has category id {category}, which is not among the "
                           "file's categories")  # fmt: skip
        if crowd not in (None, 0, 1):
            reasons.append(f"segment {number} has iscrowd {crowd!r}, expected 0 or 1")
    reasons += [f"segment id {number} stands {count} times" for number, count in twice(segments)]
    single = sum(s["category_id"] in things and not s.get("iscrowd") for s in segments)
    if single > MOST:
        reasons.append(f"{single} instances are more than {MOST} in one image")
    return reasons, {segment["id"] for segment in segments if segment.get("area") == 0}
