"""Matching of found and true instances, by faster-coco-eval: COCO's official API, faster.

It works on Python objects, so it is given one class, or some images, at a time.
T IoUs from 0.5 to 0.95, R recalls, A areas (all, small, medium, large), M limits of detections.
"""

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools import mask as rle

from segtrain.contracts import TrueInstances

logger = logging.getLogger("segtrain")

IMAGES_AT_ONCE = 100  # with 1000 proposals each, about 300 MB of Python objects
AREAS = ((0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10))  # pixels; both ends count


@dataclass(frozen=True, slots=True)
class EvaluatedImage:
    """What is kept of an image; its instances and its n detections are sorted by label."""

    truth: TrueInstances
    boxes: np.ndarray  # (n, 4) float32 x1 y1 x2 y2
    scores: np.ndarray  # (n,) float32
    labels: np.ndarray  # (n,) int64
    codes: list[bytes]  # n masks as COCO's compressed run-length codes


def precision_recall(
    truths: list[dict], found: list[dict], kind: Literal["segm", "bbox"], limits: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """One class's precision (T, R, A) and recall (T, A, M); -1 where nothing is to be found.

    T IoUs, R recalls, A areas (all, small, medium, large), M limits of detections, of which
    precision is at the last one.
    """
    if not truths:
        return -np.ones((10, 101, 4)), -np.ones((10, 4, len(limits)))
    for entry in found:
        mask, (*_, width, height) = entry["segmentation"], entry["bbox"]
        entry["area"] = float(rle.area(mask)) if kind == "segm" else width * height
    sizes = {entry["image_id"]: entry["segmentation"]["size"] for entry in (*truths, *found)}
    images = [{"id": key, "height": h, "width": w} for key, (h, w) in sizes.items()]
    sets = []
    for entries in (truths, found):
        entries = [{"iscrowd": 0, **entry, "id": n} for n, entry in enumerate(entries, 1)]
        sets.append(COCO({"images": images, "annotations": entries, "categories": [{"id": 1}]}))
    # Its own threads take longer than they save: they wait for one another's Python code.
    evaluation = COCOeval_faster(*sets, kind, print_function=logger.debug, rle_iou_max_workers=1)
    evaluation.params.maxDets = list(limits)
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    return precision[:, :, 0, :, -1].copy(), recall[:, 0]


def recall_of_all(
    images: list[tuple[int, EvaluatedImage]], kind: Literal["segm", "bbox"], limits: list[int]
) -> np.ndarray:
    """Recall (T, A, M) where labels are ignored; -1 where nothing is to be found.

    Found instances add up over images, so some are matched at a time.
    """
    found, wanted = np.zeros((10, 4, len(limits))), np.zeros(4)
    for start in range(0, len(images), IMAGES_AT_ONCE):
        part = images[start : start + IMAGES_AT_ONCE]
        truths = [true_entry(*own, n) for own in part for n in range(len(own[1].truth["codes"]))]
        entries = [found_entry(*own, n) for own in part for n in range(len(own[1].codes))]
        _, recall = precision_recall(truths, entries, kind, limits)
        areas = np.array([entry["area"] for entry in truths if not entry["iscrowd"]])
        counts = np.array([np.count_nonzero((areas >= low) & (areas <= high))
                           for low, high in AREAS])  # fmt: skip
        found += np.maximum(recall, 0) * counts[:, None]
        wanted += counts
    return np.divide(found, wanted[:, None], out=-np.ones_like(found), where=wanted[:, None] > 0)


def _entry(
    image_id: int, size: tuple[int, int], code: bytes, box: np.ndarray, category: int
) -> dict:
    x1, y1, x2, y2 = box.tolist()
    return {
        "image_id": image_id,
        "category_id": category,
        "segmentation": {"size": list(size), "counts": code.decode()},
        "bbox": [x1, y1, x2 - x1, y2 - y1],
    }


def true_entry(image_id: int, image: EvaluatedImage, place: int) -> dict:
    """A true instance in the format of COCO's annotation files, of category 1."""
    truth = image.truth
    entry = _entry(image_id, truth["size"], truth["codes"][place], truth["boxes"][place], 1)
    area, crowd = truth["area"][place].item(), int(truth["crowd"][place])
    return {**entry, "area": area, "iscrowd": crowd}


def found_entry(image_id: int, image: EvaluatedImage, place: int, category: int = 1) -> dict:
    """A found instance in the format of COCO\'s server."""
    code, box = image.codes[place], image.boxes[place]
    entry = _entry(image_id, image.truth["size"], code, box, category)
    return {**entry, "score": image.scores[place].item()}
