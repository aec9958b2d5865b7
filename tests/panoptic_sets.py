"""Small panoptic sets in COCO's format, and slow independent readings of their labels."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from segtrain.label_set import VOID
from segtrain.segments import CROWD

CATEGORIES = [
    {"id": 7, "name": "cat", "isthing": 1, "color": [220, 20, 60]},
    {"id": 3, "name": "grass", "isthing": 0, "color": [60, 20, 220]},
    {"id": 9, "name": "dog", "isthing": 1},
]
# Ids of segments, of which the lowest, middle and highest byte are used; 0 is none.
MAP = np.array([[258, 258, 70000, 70000], [258, 5, 5, 0], [9, 9, 9, 16777215]])
SEGMENTS = [
    {"id": 258, "category_id": 7, "iscrowd": 0, "area": 3},
    {"id": 70000, "category_id": 7, "iscrowd": 0, "area": 2},
    {"id": 5, "category_id": 3, "iscrowd": 0, "area": 2},
    {"id": 9, "category_id": 7, "iscrowd": 1, "area": 3},
    {"id": 16777215, "category_id": 9, "area": 1},
]
# What they are as train ids (cat 0, grass 1, dog 2) and numbers.
CLASSES = np.array([[0, 0, 0, 0], [0, 1, 1, VOID], [0, 0, 0, 2]])
NUMBERS = np.array([[1, 1, 2, 2], [1, 0, 0, 0], [CROWD, CROWD, CROWD, 3]])


def content(names: list[str]) -> dict:
    """A JSON of images that all show MAP."""
    return {
        "images": [{"id": i, "file_name": f"{n}.jpg", "height": 3, "width": 4}
                   for i, n in enumerate(names, 1)],
        "annotations": [{"image_id": i, "file_name": f"{n}.png", "segments_info": SEGMENTS}
                        for i, n in enumerate(names, 1)],
        "categories": CATEGORIES,
    }  # fmt: skip


def write_set(root: Path, splits: dict[str, list[str]]) -> None:
    """Images, a JSON a split and its folder of PNGs."""
    (root / "images").mkdir(parents=True)
    for split, names in splits.items():
        (root / split).mkdir()
        (root / f"{split}.json").write_text(json.dumps(content(names)))
        for name in names:
            Image.fromarray(np.full((3, 4, 3), 90, np.uint8)).save(root / f"images/{name}.jpg")
            write_png(root / split / f"{name}.png", MAP)


def write_png(path: Path, ids: np.ndarray) -> None:
    """A PNG whose colours are ids, R + 256 G + 65536 B."""
    channels = [ids // 256**power % 256 for power in range(3)]
    Image.fromarray(np.stack(channels, 2).astype(np.uint8)).save(path)


def read_slowly(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classes and numbers (H, W) of labels (H, W, 3), pixel by pixel's definition."""
    mask = mask.astype(int)
    return mask[..., 0], mask[..., 1] + 256 * mask[..., 2]
