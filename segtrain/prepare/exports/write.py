"""An export as a COCO JSON folder: images, one file a split, one list of categories."""

import json
import logging
import os
import shutil
from pathlib import Path

from pycocotools import mask as rle

from segtrain.dataset.coco_entries import encode_segmentation, read_instance
from segtrain.dataset.coco_folder import share_out
from segtrain.errors import UserError
from segtrain.prepare.exports.model import MISSING, Export, Picture, Shape
from segtrain.text import shortened
from segtrain.writing import complete

logger = logging.getLogger("segtrain")

NAMED = 5  # places shown of each reason
GIVE_IMAGES = "            images=<folder> names the images where they lie elsewhere"


def write_export(export: Export, target: Path, val_share: float, seed: int) -> None:
    """Writes `images/`, `train.json`, `val.json` and, where the export has one, `test.json`.

    The folder appears whole or not at all. Images are hard links where that can be, else copies.

    Args:
        export: what is written.
        target: folder that is not there yet, or is empty.
        val_share: share of the images that is `val` where the export has no such split.
        seed: of that choice.

    Raises:
        UserError: the folder is not empty, or nothing is left to write.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} is not empty; give to=<another folder>")
    with complete(target) as partial:
        (partial / "images").mkdir(parents=True)
        pictures = dict(sorted(export.pictures.items()))
        objects = {name: _object_entries(export, picture) for name, picture in pictures.items()}
        if not any(objects.values()):
            raise UserError(f"{export.kind}: no object is left to convert\n{describe(export)}")
        for name, picture in pictures.items():
            _place_image(picture, partial / "images" / name)
        counts = []
        for split, names in _splits(export, list(pictures), val_share, seed).items():
            content = _content(export, names, objects)
            text = json.dumps(content, ensure_ascii=False)
            (partial / f"{split}.json").write_text(text, encoding="utf-8")
            counts.append(f"{split}.json {len(names)}")
    total = sum(len(found) for found in objects.values())
    logger.info("written     %d images and %d objects of %d classes: %s", len(pictures), total,
                len(export.classes), ", ".join(counts))  # fmt: skip


def describe(export: Export) -> str:
    """What was dropped and why, and what is worth a look, a line a reason."""
    lines = [_line("dropped", reason, places) for reason, places in export.dropped.items()]
    if any(reason.startswith(MISSING) for reason in export.dropped):
        lines.append(GIVE_IMAGES)
    lines = lines or ["dropped     nothing"]
    lines += [_line("noted", fact, places) for fact, places in export.noted.items()]
    return "\n".join(lines)


def _line(word: str, reason: str, places: list[str]) -> str:
    return f"{word:<12}{len(places)} {reason}: {shortened(places, NAMED)}"


def _place_image(picture: Picture, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(picture.file, bytes):
        place.write_bytes(picture.file)
        return
    link_image(picture.file, place)


def link_image(file: Path, place: Path) -> None:
    """A hard link of an image, or a copy where there can be none."""
    try:
        os.link(file.resolve(), place)
    except OSError:  # another disk, or no permission
        shutil.copyfile(file, place)


def _object_entries(export: Export, picture: Picture) -> list[dict]:
    """COCO's entries of the objects, whose shapes are joined by their group."""
    size = picture.size
    objects: dict[tuple, list[Shape]] = {}
    for number, shape in enumerate(picture.shapes):
        key = (number,) if shape.group is None else (shape.label, str(shape.group))
        try:
            code = encode_segmentation(shape.segmentation, *size)
        except ValueError as error:
            export.drop("shapes that cannot be read", f"{shape.where} ({error})")
            continue
        if code is None or not rle.area(code):
            export.drop("shapes without a pixel in their image", shape.where)
            continue
        objects.setdefault(key, []).append(shape)
    entries = []
    for shapes in objects.values():
        entry = {"segmentation": _joined(shapes, size), "iscrowd": int(shapes[0].crowd)}
        code = encode_segmentation(entry["segmentation"], *size)
        left, top, right, bottom = read_instance(entry, *size).box
        entries.append({
            "category_id": export.classes.index(shapes[0].label) + 1,
            **entry,
            "area": int(rle.area(code)),
            "bbox": [round(side, 4) for side in (left, top, right - left, bottom - top)],
        })  # fmt: skip
    return entries


def _joined(shapes: list[Shape], size: tuple[int, int]) -> list | dict:
    """One segmentation; a run-length code where one of several is no list of polygons."""
    if len(shapes) == 1:
        return shapes[0].segmentation
    if all(isinstance(shape.segmentation, list) for shape in shapes):
        return [polygon for shape in shapes for polygon in shape.segmentation]
    codes = [encode_segmentation(shape.segmentation, *size) for shape in shapes]
    code = rle.merge(codes)
    return {"size": list(size), "counts": code["counts"].decode()}


def _splits(export: Export, names: list[str], val_share: float, seed: int) -> dict[str, list[str]]:
    """Images of each split: the export's own, and what is in none is `train`.

    Without a `val` of its own a share of `train` is, and without a `train` of the split that there
    is.
    """
    found: dict[str, list[str]] = {"train": [], "val": []}
    for name in names:
        for split in export.pictures[name].splits or {"train"}:
            found.setdefault(split, []).append(name)
    if not found["train"]:
        filled = next(split for split in ("val", "test") if found.get(split))
        found["train"], found[filled] = found[filled], []
        logger.info("splits      the export has no train; its %s is shared out", filled)
    if found["val"]:
        return _filled(found)
    every = found["train"]
    if len(every) == 1:
        logger.info("splits      one image is train and val both, so scores on val tell nothing")
        return _filled({**found, "val": every})
    is_val = share_out(every, val_share, seed)
    for split, wanted in (("train", False), ("val", True)):
        found[split] = [n for n, val in zip(every, is_val, strict=True) if val == wanted]
    logger.info("splits      %d of %d images are val, val_share=%s seed=%s",
                len(found["val"]), len(every), val_share, seed)  # fmt: skip
    return _filled(found)


def _filled(splits: dict[str, list[str]]) -> dict[str, list[str]]:
    return {split: names for split, names in splits.items() if names}


def _content(export: Export, names: list[str], objects: dict[str, list[dict]]) -> dict:
    """COCO's file of one split; ids count from 1 in the order of the images."""
    numbered = list(enumerate(names, 1))
    sizes = {name: export.pictures[name].size for name in names}
    entries = [(image, entry) for image, name in numbered for entry in objects[name]]
    return {
        "images": [
            {"id": image, "file_name": name, "height": sizes[name][0], "width": sizes[name][1]}
            for image, name in numbered
        ],
        "annotations": [
            {"id": number, "image_id": image, **entry}
            for number, (image, entry) in enumerate(entries, 1)
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(export.classes, 1)],
    }
