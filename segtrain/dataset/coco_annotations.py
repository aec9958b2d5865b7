"""COCO instance annotations as flat arrays on disk, made once from the official JSON.

Polygons and both run-length forms become compressed run-length codes of the transposed masks:
pycocotools' codes run down the columns, so those decode straight into rows, without a copy. The
arrays are memory-mapped; processes and loader workers share one copy.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from segtrain.dataset.cache import cached_folder, files_fingerprint
from segtrain.dataset.coco_entries import Fault, Instance, read_instance
from segtrain.dataset.files import upright_size
from segtrain.dataset.packed import PackedStrings
from segtrain.errors import UserError
from segtrain.terminal import track

logger = logging.getLogger("segtrain")

PARALLEL_FROM = 2000  # images; for fewer, starting processes takes longer
FORMAT = "3"  # of the arrays; another one makes them anew
LARGEST_ID = 65535  # of a category; files with larger ones, or texts, have theirs numbered
LARGEST_IMAGE = 2**29  # pixels; masks are decoded whole
SHOWN = 20  # faults in one message


class CocoAnnotations:
    """The images of one annotation file, sorted by id, and their n instances each.

    Images and categories whose ids are texts are numbered from 1 in the order of the file, and so
    are categories with an id above `LARGEST_ID`.

    Args:
        path: an `instances_*.json` or `image_info_*.json`.
        images: folder whose images tell the sizes that the file does not; None where it tells all.

    Raises:
        UserError: the file is missing or not in COCO's format, or annotations cannot be read;
            names each by its id.
    """

    def __init__(self, path: Path, images: Path | None = None) -> None:
        if not path.is_file():
            raise UserError(
                f"{path}: no such file; segtrain prepare dataset=<name> downloads the annotations"
            )
        self.path = path
        self.key = f"{FORMAT} {images or ''} {files_fingerprint([path.resolve()])}"
        folder = cached_folder(
            cache_name(path), self.key, lambda target: pack(path, images, target)
        )

        def array(part: str) -> np.ndarray:
            return np.load(folder / f"{part}.npy", mmap_mode="r")

        self.image_ids = array("image_ids")  # (N,) int64
        self.sizes = array("sizes")  # (N, 2) int32 height, width
        self.first = array("first")  # (N + 1,) int64: instances first[i]..first[i+1] are image i's
        self.categories = array("categories")  # (M,) int32 sparse category ids
        self.positions = array("positions")  # (M,) int32 places in the file's order
        self.boxes = array("boxes")  # (M, 4) float32 x1 y1 x2 y2, inside the image
        self.areas = array("areas")  # (M,) float32
        self.crowds = array("crowds")  # (M,) bool
        self.code_offsets = array("code_offsets")  # (M + 1,) int64
        self.codes = array("codes")  # uint8
        self.file_names = PackedStrings(())
        self.file_names.data = array("names")
        self.file_names.offsets = array("name_offsets")
        told = json.loads((folder / "told.json").read_text())
        self.names = {int(number): name for number, name in told["categories"]}
        self.faults: list[str] = told["faults"]  # what stands twice or belongs to nothing
        self.left_out: list[str] = told["left_out"]  # annotations that show nothing
        self.annotated: bool = told["annotated"]

    def instances(self, image: int) -> slice:
        """Which of the M instances are the image's."""
        return slice(int(self.first[image]), int(self.first[image + 1]))

    def masks(self, image: int) -> np.ndarray:
        """(n, H, W) uint8 masks, 0 or 1."""
        height, width = (int(side) for side in self.sizes[image])
        offsets = self.code_offsets[self.first[image] : self.first[image + 1] + 1]
        codes = [
            {"size": [width, height], "counts": self.codes[start:end].tobytes()}
            for start, end in zip(offsets[:-1], offsets[1:], strict=True)
        ]
        if not codes:
            return np.zeros((0, height, width), np.uint8)
        return rle.decode(codes).transpose(2, 1, 0)


def cache_name(path: Path) -> str:
    """Of the folder of the cache that holds what an annotation file became.

    Size and place are part of it: files that are called alike are kept side by side.
    """
    place = sha256(str(path.resolve().parent).encode()).hexdigest()[:8]
    return f"coco/{path.stem}-{path.stat().st_size}-{place}"


def pack(path: Path, folder: Path | None, target: Path) -> None:
    """Writes the arrays of one annotation file into `target`.

    Annotations without a pixel (an empty segmentation, no polygon of three points, a box outside
    the image) are left out; they and what stands twice are named in `told.json`.

    Args:
        path: the file.
        folder: of the images; see `CocoAnnotations`.
        target: gets the arrays.

    Raises:
        UserError: the file is not in COCO's format, or annotations cannot be read.
    """
    content = read_content(path)
    categories = category_numbers(path, content["categories"])
    images = [with_size(path, folder, image) for image in content["images"]]
    numbers = number_images(images)
    faults = [f"{path}: image id {n} stands {c} times" for n, c in twice(images)]
    faults += [f"{path}: annotation id {n} stands {c} times" for n, c in twice(content["all"])]
    refused, left_out = [], []
    by_image: dict[int | str, list[tuple[int, dict]]] = {image["id"]: [] for image in images}
    for position, entry in _sorted(content["all"]):
        if categories and entry["category_id"] not in categories:
            refused.append(
                f"annotation {entry['id']} has category id {entry['category_id']}, which is not "
                f"among the file's categories {', '.join(map(str, categories))}"
            )
        elif entry["image_id"] in by_image:
            by_image[entry["image_id"]].append((position, entry))
        else:
            faults.append(f"{path}: annotation {entry['id']} is of no listed image")
    rows, first = [], [0]
    for image, found in zip(images, _read_all(images, by_image), strict=True):
        for (position, entry), instance in zip(by_image[image["id"]], found, strict=True):
            if isinstance(instance, Instance):
                category = categories.get(entry["category_id"], entry["category_id"])
                rows.append((position, category, instance))
            else:
                text = f"annotation {entry['id']} {instance.reason}"
                (left_out if instance.empty else refused).append(text)
        first.append(len(rows))
    refuse(path, refused)
    instances = [instance for _, _, instance in rows]
    names = PackedStrings(image["file_name"] for image in images)
    arrays = {
        "image_ids": np.array(numbers, np.int64),
        "sizes": np.array([(i["height"], i["width"]) for i in images], np.int32).reshape(-1, 2),
        "first": np.array(first, np.int64),
        "positions": np.array([row[0] for row in rows], np.int32),
        "categories": np.array([row[1] for row in rows], np.int32),
        "boxes": np.array([instance.box for instance in instances], np.float32).reshape(-1, 4),
        "areas": np.array([instance.area for instance in instances], np.float32),
        "crowds": np.array([instance.crowd for instance in instances], bool),
        "code_offsets": np.cumsum([0, *(len(i.code) for i in instances)], dtype=np.int64),
        "codes": np.frombuffer(b"".join(instance.code for instance in instances), np.uint8),
        "names": names.data,
        "name_offsets": names.offsets,
    }
    for name, array in arrays.items():
        np.save(target / f"{name}.npy", array)
    told = {
        "categories": [(categories[e["id"]], e["name"]) for e in content["categories"]],
        "faults": faults,
        "left_out": [f"{path}: {text}" for text in left_out],
        "annotated": content["annotated"],
    }
    (target / "told.json").write_text(json.dumps(told))


def read_content(path: Path) -> dict[str, Any]:
    """Lists of `images`, `categories` and `all` annotations, each entry with what it must have.

    An annotation without an id has its place in the list for one, a category without a name its id.

    Raises:
        UserError: the file is not in COCO's format.
    """
    try:
        content = json.loads(path.read_bytes())
        parts = {
            "images": content["images"],
            "categories": content.get("categories") or [],
            "all": content.get("annotations") or [],
        }
        for entry in parts["categories"]:
            entry.setdefault("name", str(entry.get("id")))
        for part, keys in (("images", ("id", "file_name")), ("categories", ("id", "name"))):
            for entry in parts[part]:
                require_values(entry, part, keys)
        for place, entry in enumerate(parts["all"]):
            if "segments_info" in entry:
                raise ValueError("it is a panoptic one, which dataset=folder_panoptic reads")
            entry.setdefault("id", f"at place {place}")
            require_values(entry, "annotations", ("id", "image_id", "category_id"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: not an annotation file of COCO ({error})") from None
    return {**parts, "annotated": "annotations" in content}


def category_numbers(path: Path, categories: Sequence[dict]) -> dict[int | str, int]:
    """Number of each category id: itself, or its place from 1 where one is a text or too large.

    Raises:
        UserError: an id or a name stands twice.
    """
    for key in ("id", "name"):
        for value, count in twice(categories, key):
            raise UserError(f"{path}: category {key} {value} stands {count} times")
    ids = [category["id"] for category in categories]
    plain = all(isinstance(number, int) and 0 <= number <= LARGEST_ID for number in ids)
    return {number: number if plain else place for place, number in enumerate(ids, 1)}


def number_images(images: list[dict]) -> list[int]:
    """Sorts images by id, in place, and returns the ids; where one is a text, numbers from 1."""
    numbers = [image["id"] for image in images]
    if not all(isinstance(number, int) and abs(number) < 2**63 for number in numbers):
        return list(range(1, len(images) + 1))
    images.sort(key=lambda image: image["id"])
    return sorted(numbers)


def refuse(path: Path, reasons: list[str]) -> None:
    """Refuses annotations that cannot be read.

    Raises:
        UserError: there is a reason; names the first ones.
    """
    if reasons:
        more = f"\n  ... and {len(reasons) - SHOWN} more" if reasons[SHOWN:] else ""
        shown = "".join(f"\n  {path}: {text}" for text in reasons[:SHOWN])
        raise UserError(f"{path}: {len(reasons)} annotations cannot be read; mend or remove "
                        f"them{shown}{more}")  # fmt: skip


def require_values(entry: dict, part: str, keys: tuple[str, ...]) -> None:
    """Refuses an entry of a list that lacks a key; whole numbers written as 1.0 become integers.

    Raises:
        ValueError: the value of a key is neither a number nor a text; says which.
    """
    for key in keys:
        value = entry.get(key)
        if isinstance(value, float) and value.is_integer():  # as tables of numbers are written
            entry[key] = value = int(value)
        text = key in ("file_name", "name")
        if isinstance(value, bool) or not isinstance(value, str if text else int | str):
            raise ValueError(f"{part}: entry {entry.get('id')} has {key} {value!r}")


def with_size(path: Path, folder: Path | None, image: dict) -> dict:
    """The image with height and width, those of its file where it has none.

    Raises:
        UserError: they are no size of an image.
    """
    sides = [image.get("height"), image.get("width")]
    if None in sides and folder is not None:
        sides = upright_size(folder / image["file_name"])
    whole = all(isinstance(side, int) and side > 0 for side in sides)
    if not whole or sides[0] * sides[1] > LARGEST_IMAGE:
        raise UserError(f"{path}: image {image['id']} ({image['file_name']}) has height {sides[0]} "
                        f"and width {sides[1]}, expected those of an image of at most "
                        f"{LARGEST_IMAGE:,} pixels")  # fmt: skip
    return {**image, "height": sides[0], "width": sides[1]}


def _sorted(annotations: list[dict]) -> list[tuple[int, dict]]:
    """Each with its place in the file; by id where all ids are numbers."""
    numbered = list(enumerate(annotations))
    if all(isinstance(entry["id"], int) for entry in annotations):
        numbered.sort(key=lambda item: item[1]["id"])
    return numbered


def _read_all(
    images: list[dict], by_image: dict[int | str, list[tuple[int, dict]]]
) -> Iterator[list[Instance | Fault]]:
    """The instances of each image, in several processes where there are many."""
    if len(images) < PARALLEL_FROM:
        for image in images:
            yield _read_image(image, by_image[image["id"]])
        return
    logger.info("annotations packing those of %d images, once", len(images))
    with ProcessPoolExecutor() as pool:
        entries = (by_image[image["id"]] for image in images)
        done = pool.map(_read_image, images, entries, chunksize=64)
        yield from track(done, len(images), "packing")


def _read_image(image: dict, entries: list[tuple[int, dict]]) -> list[Instance | Fault]:
    return [read_instance(entry, image["height"], image["width"]) for _, entry in entries]


def twice(entries: Sequence[dict], key: str = "id") -> list[tuple[int | str, int]]:
    """What stands more than once, and how often."""
    counts = Counter(entry[key] for entry in entries)
    return [(number, count) for number, count in counts.items() if count > 1]
