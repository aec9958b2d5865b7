"""Cityscapes' panoptic labels in COCO's format, equal to cityscapesScripts' `createPanopticImgs`.

Its evaluator and other frameworks read them; our own training and evaluation need `instanceIds`
alone.
"""

from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from segtrain.dataset.cityscapes import IMAGE_END
from segtrain.dataset.files import read_mask
from segtrain.dataset.labels import CITYSCAPES_CLASSES, CITYSCAPES_PALETTE, CITYSCAPES_THINGS
from segtrain.dataset.pairs import ImageMaskPairs
from segtrain.terminal import track
from segtrain.writing import write_json, write_picture

GROUPS = {  # label id -> the category that cityscapesScripts counts it to
    7: "flat", 8: "flat", 11: "construction", 12: "construction", 13: "construction", 17: "object",
    19: "object", 20: "object", 21: "nature", 22: "nature", 23: "sky", 24: "human", 25: "human",
    26: "vehicle", 27: "vehicle", 28: "vehicle", 31: "vehicle", 32: "vehicle", 33: "vehicle",
}  # fmt: skip
IDS_END = "_instanceIds.png"


def write_panoptic(source: ImageMaskPairs, split: str, folder: Path) -> None:
    """Writes `cityscapes_panoptic_<split>.json` and a folder of the same name with the PNGs.

    Args:
        source: the split, of `cityscapes_panoptic`.
        split: its name.
        folder: gets them.

    Raises:
        UserError: a file is missing or damaged.
    """
    target = folder / f"cityscapes_panoptic_{split}"
    files = [Path(pair.mask) for pair in source.pairs]
    with ProcessPoolExecutor() as pool:
        done = pool.map(_convert, files, repeat(target), chunksize=8)
        pairs = list(track(done, len(files), f"writing {split}"))
    categories = [
        {"id": label, "name": name, "color": list(colour), "supercategory": GROUPS[label],
         "isthing": int(label in CITYSCAPES_THINGS)}
        for (label, name), colour in zip(
            CITYSCAPES_CLASSES.items(), CITYSCAPES_PALETTE, strict=True
        )
    ]  # fmt: skip
    images, annotations = (list(part) for part in zip(*pairs, strict=True))
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_json(target.with_suffix(".json"), content)


def _convert(file: Path, target: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Writes the PNG of one file; returns the JSON's entries of its image and annotation."""
    ids = read_mask(file)
    kept = np.zeros(ids.shape, np.int32)
    segments = []
    for number in np.flatnonzero(np.bincount(ids.ravel())).tolist():
        label = number if number < 1000 else number // 1000
        if label not in CITYSCAPES_CLASSES:
            continue
        mask = ids == number
        kept[mask] = number
        is_group = number < 1000 and label in CITYSCAPES_THINGS
        box = list(cv2.boundingRect(mask.view(np.uint8)))
        segments.append({"id": number, "category_id": label, "area": int(np.count_nonzero(mask)),
                         "bbox": box, "iscrowd": int(is_group)})  # fmt: skip
    base = file.name.removesuffix(IDS_END)
    image_id = base.rpartition("_")[0]  # without gtFine or gtCoarse
    colours = np.dstack([kept & 0xFF, kept >> 8, kept >> 16]).astype(np.uint8)
    write_picture(Image.fromarray(colours), target / f"{base}_panoptic.png")
    image = {"id": image_id, "width": ids.shape[1], "height": ids.shape[0],
             "file_name": f"{base}{IMAGE_END}"}  # fmt: skip
    annotation = {"image_id": image_id, "file_name": f"{base}_panoptic.png",
                  "segments_info": segments}  # fmt: skip
    return image, annotation
