"""AP and AR of masks and boxes, as COCO's official API computes them (Lin et al. 2014).

The matching is faster-coco-eval's, one class at a time: its Python objects take much memory.
"""

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch.distributed as dist
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools import mask as rle

from segtrain.contracts import Detections, LabelSet, TrueInstances
from segtrain.masks import paste

logger = logging.getLogger("segtrain")


@dataclass(frozen=True)
class ApAr:
    """Fractions in 0..1; None where there is nothing to be found.

    Everything but `ar` is at the largest number of detections. AP is the mean over ten IoUs from
    0.5 to 0.95, 101 recalls and the classes; AR that over the IoUs and classes. Sizes are by the
    areas that the annotations state: small up to 32^2 pixels, large from 96^2.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar: dict[int, float | None]  # by the number of detections
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None
    per_class_ap: list[float | None]  # empty where labels are ignored


@dataclass(frozen=True)
class CocoScores:
    """Scores of one set of detections, by the overlap of masks and by that of boxes."""

    masks: ApAr
    boxes: ApAr


@dataclass(frozen=True, slots=True)
class EvaluatedImage:
    """What is kept of an image; its instances and its n detections are sorted by label."""

    truth: TrueInstances
    boxes: np.ndarray  # (n, 4) float32 x1 y1 x2 y2
    scores: np.ndarray  # (n,) float32
    labels: np.ndarray  # (n,) int64
    codes: list[bytes]  # n masks as COCO's compressed run-length codes


class CocoEvaluation:
    """Collects detections image by image and scores them, over all processes.

    Args:
        num_classes: K.
        class_agnostic: whether labels are ignored, as the official API does without `useCats`.
        max_detections: numbers of detections per image and class (per image, where labels are
            ignored) for which AR is computed. Those beyond the largest one are not kept.
        mask_threshold: pixels with a higher probability belong to the object.
    """

    def __init__(
        self,
        num_classes: int,
        class_agnostic: bool = False,
        max_detections: tuple[int, ...] = (1, 10, 100),
        mask_threshold: float = 0.5,
    ) -> None:
        self.num_classes = 1 if class_agnostic else num_classes
        self.class_agnostic = class_agnostic
        self.max_detections = sorted(max_detections)
        self.mask_threshold = mask_threshold
        self.images: dict[int, EvaluatedImage] = {}

    def reset(self) -> None:
        """Forgets all images."""
        self.images = {}

    def update(self, detections: list[Detections], targets: list[TrueInstances]) -> None:
        """Adds images; one that was added before is replaced. Labels must be below K."""
        for found, truth in zip(detections, targets, strict=True):
            scores, labels = found["scores"].float().cpu().numpy(), found["labels"].cpu().numpy()
            kept = best(scores, labels, self.max_detections[-1], self.class_agnostic)
            boxes = found["boxes"].float().cpu().numpy()[kept]
            masks = found["masks"].float().cpu().numpy()[kept]
            codes = paste(masks, boxes, truth["size"], self.mask_threshold)
            image = EvaluatedImage(_by_label(truth), boxes, scores[kept], labels[kept], codes)
            self.images[truth["image_id"]] = image

    def compute(self) -> CocoScores:
        """Scores of the images of all processes, each image counted once.

        A collective call: rank zero computes, all processes return the scores.
        """
        with _collective() as group:
            images = self._gathered(group)
            result = [None if images is None else self._scores(images)]
            if group is not None:
                dist.broadcast_object_list(result, src=0, group=group)
        return result[0]

    def results(self, labels: LabelSet, boxes: bool = True) -> Iterator[dict]:
        """This process's detections in the format of COCO's server, image by image.

        Args:
            labels: tells the category id of a label, the smallest of its raw values.
            boxes: whether entries have their box. The official API then goes by the boxes' areas
                also where it evaluates masks by size; `compute` goes by the masks' areas.
        """
        return _results(sorted(self.images.items()), labels, boxes)

    def write_results(self, path: Path, labels: LabelSet, boxes: bool = True) -> None:
        """Writes `results` of all processes as JSON; a collective call, rank zero writes."""
        with _collective() as group:
            images = self._gathered(group)
        if images is None:
            return
        with path.open("w") as file:
            file.write("[")
            for index, entry in enumerate(_results(images, labels, boxes)):
                file.write((",\n" if index else "\n") + json.dumps(entry))
            file.write("\n]\n")

    def _gathered(self, group: dist.ProcessGroup | None) -> list[tuple[int, EvaluatedImage]] | None:
        """All processes' images, sorted by id, on rank zero; None on the others."""
        if group is None:
            return sorted(self.images.items())
        if dist.get_rank():
            dist.send_object_list([self.images], dst=0, group=group)
            return None
        images = dict(self.images)
        for rank in range(1, dist.get_world_size()):
            received = [None]
            dist.recv_object_list(received, src=rank, group=group)
            images.update(received.pop())
        return sorted(images.items())

    def _scores(self, images: list[tuple[int, EvaluatedImage]]) -> CocoScores:
        truths = self._by_class([image.truth["labels"] for _, image in images])
        founds = self._by_class([image.labels for _, image in images])
        masks, boxes = [], []
        for truth, found in zip(truths, founds, strict=True):
            entries = (
                [_true_entry(*images[image], place) for image, place in truth.tolist()],
                [_found_entry(*images[image], place) for image, place in found.tolist()],
            )
            masks.append(_precision_recall(*entries, "segm", self.max_detections))
            boxes.append(_precision_recall(*entries, "bbox", self.max_detections))
        return CocoScores(self._summary(masks), self._summary(boxes))

    def _by_class(self, labels: list[np.ndarray]) -> list[np.ndarray]:
        """(m, 2) for each class: the images of its instances and their places therein."""
        image = np.repeat(np.arange(len(labels)), [len(part) for part in labels])
        place = _joined(np.arange(len(part)) for part in labels)
        label = np.zeros_like(place) if self.class_agnostic else _joined(labels)
        order = np.argsort(label, kind="stable")
        bounds = np.searchsorted(label[order], np.arange(1, self.num_classes))
        return np.split(np.stack([image, place], 1)[order], bounds)

    def _summary(self, tables: list[tuple[np.ndarray, np.ndarray]]) -> ApAr:
        precision = np.stack([table for table, _ in tables], 2)  # (T, R, K, A)
        recall = np.stack([table for _, table in tables], 1)  # (T, K, A, M)
        classes = [] if self.class_agnostic else range(self.num_classes)
        return ApAr(
            _mean(precision[..., 0]),
            _mean(precision[0, ..., 0]),
            _mean(precision[5, ..., 0]),
            *(_mean(precision[..., size]) for size in (1, 2, 3)),
            {limit: _mean(recall[..., 0, m]) for m, limit in enumerate(self.max_detections)},
            *(_mean(recall[..., size, -1]) for size in (1, 2, 3)),
            [_mean(precision[:, :, label, 0]) for label in classes],
        )


def best(scores: np.ndarray, labels: np.ndarray, limit: int, class_agnostic: bool) -> np.ndarray:
    """Which (m,) of n detections are among the `limit` best of their label, sorted by label.

    Ties are settled as by the official API: the smaller label first, then the order given.

    Args:
        scores: (n,).
        labels: (n,).
        limit: as many are kept of each label.
        class_agnostic: whether they are kept of all labels together.
    """
    order = np.argsort(labels, kind="stable")
    groups = np.zeros_like(labels) if class_agnostic else labels[order]
    ranking = np.lexsort((-scores[order], groups))
    rank = np.arange(len(groups)) - np.searchsorted(groups, groups)  # ranking keeps groups together
    return order[np.sort(ranking[rank < limit])]


@contextmanager
def _collective() -> Iterator[dist.ProcessGroup | None]:
    """A group of all processes that sends objects from host memory; None of a single process."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        yield None
        return
    group = dist.new_group(backend="gloo")  # nccl would send them through GPU memory
    try:
        yield group
    finally:
        dist.destroy_process_group(group)


def _by_label(truth: TrueInstances) -> TrueInstances:
    order = np.argsort(truth["labels"], kind="stable")
    arrays = {key: truth[key][order] for key in ("boxes", "labels", "crowd", "area")}
    return {**truth, **arrays, "codes": [truth["codes"][index] for index in order]}


def _joined(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *parts])


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


def _true_entry(image_id: int, image: EvaluatedImage, place: int) -> dict:
    truth = image.truth
    entry = _entry(image_id, truth["size"], truth["codes"][place], truth["boxes"][place], 1)
    area, crowd = truth["area"][place].item(), int(truth["crowd"][place])
    return {**entry, "area": area, "iscrowd": crowd}


def _found_entry(image_id: int, image: EvaluatedImage, place: int, category: int = 1) -> dict:
    code, box = image.codes[place], image.boxes[place]
    entry = _entry(image_id, image.truth["size"], code, box, category)
    return {**entry, "score": image.scores[place].item()}


def _results(
    images: list[tuple[int, EvaluatedImage]], labels: LabelSet, boxes: bool
) -> Iterator[dict]:
    categories: dict[int | None, int] = {}
    for raw, train in sorted(labels.raw_to_train.items()):
        categories.setdefault(train, raw)
    for image_id, image in images:
        for place, label in enumerate(image.labels.tolist()):
            entry = _found_entry(image_id, image, place, categories[label])
            if not boxes:
                del entry["bbox"]
            yield entry


def _precision_recall(
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


def _mean(values: np.ndarray) -> float | None:
    found = values[values > -1]
    return found.mean().item() if found.size else None
