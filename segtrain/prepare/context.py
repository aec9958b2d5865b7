"""PASCAL-Context's annotations -> one 16-bit PNG of the 459 labels per image, and split lists."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from segtrain.dataset.coco_entries import encode_segmentation
from segtrain.dataset.context import HINT, INSIDE, LISTS, MASKS
from segtrain.dataset.files import find_base, read_list, read_mat
from segtrain.dataset.labels import CONTEXT_CLASSES
from segtrain.errors import UserError
from segtrain.terminal import track
from segtrain.writing import complete, remove, write_picture, write_text

JSON = "trainval_merged.json"
# The 459-label list calls three of the 59 classes otherwise.
OTHER_NAMES = {"table": "diningtable", "bedclothes": "bedcloth", "cloth": "clothes"}


def convert(root: Path) -> bool:
    """Writes the label PNGs and the lists of `train` and `val`, whole or not at all.

    The labels come from `trainval/*.mat`, with the lists of VOC 2010, or from
    `trainval_merged.json`, which lists its own images; both lie in the root or beside JPEGImages.

    Returns:
        False where they are there already.

    Raises:
        UserError: neither is there, or the annotations are not what they should be.
    """
    base = find_base(root, INSIDE, HINT)
    masks, lists = base / MASKS, base / LISTS
    if masks.is_dir() and (lists / "val.txt").is_file():
        return False
    matlab = _first(root, base, "trainval", Path.is_dir)
    merged = _first(root, base, JSON, Path.is_file)
    if not (matlab or merged):
        raise UserError(f"{root}: neither trainval/*.mat nor {JSON} is there")
    with complete(masks) as partial:
        partial.mkdir()
        names = convert_mat(matlab, base, partial) if matlab else convert_json(merged, partial)
        for split, members in names.items():
            write_text(lists / f"{split}.txt", "".join(f"{name}\n" for name in members))
        remove(masks)  # of a conversion whose lists are gone
    return True


def convert_mat(folder: Path, base: Path, target: Path) -> dict[str, list[str]]:
    """Per-image `LabelMap` files -> PNGs in `target`; returns the names of each split.

    Raises:
        UserError: a file is missing or damaged, or `labels.txt` beside the folder numbers the
            classes otherwise than we do.
    """
    numbered = folder.parent / "labels.txt"
    if numbered.is_file():
        entries = [line.split(":", 1) for line in read_list(numbered)]
        check_classes({int(number): name.strip() for number, name in entries}, numbered)
    names = {split: read_list(base / f"ImageSets/Main/{split}.txt") for split in ("train", "val")}
    jobs = [name for members in names.values() for name in members]
    with ProcessPoolExecutor() as pool:
        sources = [folder / f"{name}.mat" for name in jobs]
        targets = [target / f"{name}.png" for name in jobs]
        for _ in track(pool.map(_mat_to_png, sources, targets, chunksize=32), len(jobs), "labels"):
            pass
    return names


def convert_json(path: Path, target: Path) -> dict[str, list[str]]:
    """The merged JSON (run-length codes of the 59 classes, later ones over earlier ones) -> PNGs in
    `target`; returns the names of each split.

    Raises:
        UserError: the file has another format or other classes.
    """
    try:
        content = json.loads(path.read_bytes())
        classes = {entry["category_id"]: entry["name"] for entry in content["categories"]}
        images = {image["image_id"]: image for image in content["images"]}
        annotations: dict[int, list[dict]] = {number: [] for number in images}
        for entry in content["annos_segmentation"]:
            annotations[entry["image_id"]].append(entry)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not PASCAL-Context's merged annotations ({error!r})") from None
    check_classes(classes, path)
    names: dict[str, list[str]] = {"train": [], "val": []}
    for number, image in track(images.items(), len(images), "labels"):
        if image["phase"] in names:
            name = Path(image["file_name"]).stem
            names[image["phase"]].append(name)
            label_map = paint(annotations[number], image["height"], image["width"])
            write_picture(Image.fromarray(label_map), target / f"{name}.png")
    return {split: sorted(members) for split, members in names.items()}


def paint(annotations: list[dict], height: int, width: int) -> np.ndarray:
    """(H, W) uint16 labels of one image's annotations, in their order; 0 where there is none."""
    label_map = np.zeros((height, width), np.uint16)
    for entry in annotations:
        code = encode_segmentation(entry["segmentation"], height, width)
        if code is not None:
            label_map[rle.decode(code) > 0] = entry["category_id"]
    return label_map


def check_classes(found: dict[int, str], path: Path) -> None:
    """Refuses annotations whose numbers mean other classes than `CONTEXT_CLASSES`."""
    for number, expected in CONTEXT_CLASSES.items():
        name = found.get(number, "nothing")
        if OTHER_NAMES.get(name, name) != expected:
            raise UserError(f"{path}: label {number} is '{name}', expected '{expected}'")


def _mat_to_png(source: Path, target: Path) -> None:
    write_picture(Image.fromarray(read_mat(source).astype(np.uint16)), target)


def _first(root: Path, base: Path, name: str, exists: Callable[[Path], bool]) -> Path | None:
    candidates: Iterator[Path] = (folder / name for folder in (root, base))
    return next((path for path in candidates if exists(path)), None)
