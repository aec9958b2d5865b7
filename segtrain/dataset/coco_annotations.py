"""COCO instance annotations as flat arrays on disk, made once from the official JSON.

Polygons and both run-length forms become compressed run-length codes of the transposed masks:
pycocotools' codes run down the columns, so those decode straight into rows, without a copy. The
arrays are memory-mapped; processes and loader workers share one copy.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from pycocotools import mask as rle

from segtrain.contracts import LabelSet, Listing
from segtrain.dataset.cache import cached_folder, files_fingerprint
from segtrain.dataset.packed import PackedStrings
from segtrain.dataset.progress import track
from segtrain.errors import UserError

logger = logging.getLogger("segtrain")

PARALLEL_FROM = 2000  # images; for fewer, starting processes takes longer
FORMAT = "2"  # of the arrays; another one makes them anew


class CocoAnnotations:
    """The images of one annotation file, sorted by id, and their n instances each.

    Args:
        path: an `instances_*.json` or `image_info_*.json`.

    Raises:
        UserError: the file is missing or not in COCO's format.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(
                f"{path}: no such file; segtrain prepare dataset=<name> downloads the annotations"
            )
        self.path = path
        self.key = f"{FORMAT} {files_fingerprint([path.resolve()])}"
        # The size is part of the name: a full file and a sample keep their arrays side by side.
        name = f"coco/{path.stem}-{path.stat().st_size}"
        folder = cached_folder(name, self.key, lambda target: pack(path, target))

        def array(part: str) -> np.ndarray:
            return np.load(folder / f"{part}.npy", mmap_mode="r")

        self.image_ids = array("image_ids")  # (N,) int64
        self.sizes = array("sizes")  # (N, 2) int32 height, width
        self.first = array("first")  # (N + 1,) int64: instances first[i]..first[i+1] are image i's
        self.categories = array("categories")  # (M,) int32 sparse category ids
        self.boxes = array("boxes")  # (M, 4) float32 x1 y1 x2 y2, inside the image
        self.areas = array("areas")  # (M,) float32
        self.crowds = array("crowds")  # (M,) bool
        self.code_offsets = array("code_offsets")  # (M + 1,) int64
        self.codes = array("codes")  # uint8
        self.file_names = PackedStrings(())
        self.file_names.data = array("names")
        self.file_names.offsets = array("name_offsets")
        self.faults = json.loads((folder / "faults.json").read_text())
        self.annotated = (folder / "annotated").exists()

    def listing(self, folder: Path, images: Iterable[int], labels: LabelSet) -> Listing:
        """Image files of the chosen positions, which lie in `folder`."""
        return Listing(
            key=f"{self.key} {labels.describe()}",
            files=[str(folder / self.file_names[image]) for image in images],
            faults=self.faults,
        )

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


def pack(path: Path, folder: Path) -> None:
    """Writes the arrays of one annotation file.

    Instances without a pixel (no polygon of three points, a box outside the image) are left out;
    they and ids that stand twice are named in `faults.json`.

    Raises:
        UserError: the file is not in COCO's format.
    """
    try:
        content = json.loads(path.read_bytes())
        images = sorted(content["images"], key=lambda image: image["id"])
        annotations = sorted(content.get("annotations", ()), key=lambda entry: entry["id"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not an annotation file of COCO ({error})") from None
    faults = [f"{path}: image id {n} stands {c} times" for n, c in _twice(images)]
    faults += [f"{path}: annotation id {n} stands {c} times" for n, c in _twice(annotations)]
    by_image: dict[int, list[dict]] = {image["id"]: [] for image in images}
    for entry in annotations:
        if entry["image_id"] not in by_image:
            faults.append(f"{path}: annotation {entry['id']} is of no listed image")
            continue
        by_image[entry["image_id"]].append(entry)
    rows, first = [], [0]
    for image, encoded in zip(images, _encode_all(images, by_image), strict=True):
        for entry, row in zip(by_image[image["id"]], encoded, strict=True):
            if row is None:
                faults.append(f"{path}: annotation {entry['id']} has no pixel in its image")
            else:
                rows.append(row)
        first.append(len(rows))
    codes = [row[-1] for row in rows]
    names = PackedStrings(image["file_name"] for image in images)
    arrays = {
        "image_ids": np.array([image["id"] for image in images], np.int64),
        "sizes": np.array([(i["height"], i["width"]) for i in images], np.int32).reshape(-1, 2),
        "first": np.array(first, np.int64),
        "categories": np.array([row[0] for row in rows], np.int32),
        "boxes": np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
        "areas": np.array([row[2] for row in rows], np.float32),
        "crowds": np.array([row[3] for row in rows], bool),
        "code_offsets": np.cumsum([0, *(len(code) for code in codes)], dtype=np.int64),
        "codes": np.frombuffer(b"".join(codes), np.uint8),
        "names": names.data,
        "name_offsets": names.offsets,
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "faults.json").write_text(json.dumps(faults))
    if "annotations" in content:
        (folder / "annotated").touch()


def encode_segmentation(segmentation: list | dict, height: int, width: int) -> dict | None:
    """Compressed run-length code of polygons, of an uncompressed code or of a compressed one.

    None where no polygon has three points; pycocotools would take four numbers for a box.
    """
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            return rle.frPyObjects(segmentation, height, width)
        return segmentation
    polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
    return rle.merge(rle.frPyObjects(polygons, height, width)) if polygons else None


def _encode_all(
    images: list[dict], by_image: dict[int, list[dict]]
) -> Iterator[list[tuple | None]]:
    """The rows of each image, in several processes where there are many."""
    if len(images) < PARALLEL_FROM:
        for image in images:
            yield _encode_image(image, by_image[image["id"]])
        return
    logger.info("annotations packing those of %d images, once", len(images))
    with ProcessPoolExecutor() as pool:
        entries = (by_image[image["id"]] for image in images)
        done = pool.map(_encode_image, images, entries, chunksize=64)
        yield from track(done, len(images), "packing")


def _encode_image(image: dict, entries: list[dict]) -> list[tuple | None]:
    return [_encode(entry, image["height"], image["width"]) for entry in entries]


def _encode(entry: dict, height: int, width: int) -> tuple | None:
    """Category, clipped box, area, crowd flag and code of the transposed mask of an annotation."""
    left, top, box_width, box_height = entry["bbox"]
    box = (max(left, 0), max(top, 0), min(left + box_width, width), min(top + box_height, height))
    code = encode_segmentation(entry["segmentation"], height, width)
    if code is None or box[2] <= box[0] or box[3] <= box[1]:
        return None
    counts = rle.encode(np.asfortranarray(rle.decode(code).T))["counts"]
    return entry["category_id"], box, entry["area"], bool(entry.get("iscrowd", 0)), counts


def _twice(entries: list[dict]) -> list[tuple[int, int]]:
    counts = Counter(entry["id"] for entry in entries)
    return [(number, count) for number, count in counts.items() if count > 1]
