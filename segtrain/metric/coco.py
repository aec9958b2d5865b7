"""AP and AR of masks and boxes, as COCO's official API computes them (Lin et al. 2014).

The matching is faster-coco-eval's, one class at a time: its Python objects take much memory.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch.distributed as dist

from segtrain.contracts import Detections, TrueInstances
from segtrain.label_set import LabelSet
from segtrain.masks import as_arrays, codes_of
from segtrain.metric.matching import (
    EvaluatedImage,
    found_entry,
    precision_recall,
    recall_of_all,
    true_entry,
)
from segtrain.metric.processes import collective
from segtrain.writing import complete


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
    per_class_ap: list[float | None]  # empty, as AP is None, where labels are ignored
    # (10, 101): by IoU and recall, the mean over the classes
    precision: np.ndarray | None = field(default=None, compare=False)


@dataclass(frozen=True)
class CocoScores:
    """Scores of one set of detections, by the overlap of masks and by that of boxes."""

    masks: ApAr
    boxes: ApAr


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
        self.num_classes = num_classes
        self.class_agnostic = class_agnostic
        self.max_detections = sorted(max_detections)
        self.mask_threshold = mask_threshold
        self.images: dict[int, EvaluatedImage] = {}

    def reset(self) -> None:
        """Forgets all images."""
        self.images = {}

    def update(self, detections: list[Detections], targets: list[TrueInstances]) -> None:
        """Adds images, with labels below `num_classes`.

        Raises:
            ValueError: an image was added before.
        """
        for found, truth in zip(detections, targets, strict=True):
            found = as_arrays(found)
            scores, labels = found["scores"], found["labels"]
            kept = best(scores, labels, self.max_detections[-1], self.class_agnostic)
            boxes = found["boxes"][kept]
            codes = codes_of(found, truth["size"], self.mask_threshold, kept)
            image = EvaluatedImage(_by_label(truth), boxes, scores[kept], labels[kept], codes)
            if truth["image_id"] in self.images:
                raise ValueError(f"image id {truth['image_id']} stands for two images")
            self.images[truth["image_id"]] = image

    def compute(self) -> CocoScores:
        """Scores of the images of all processes, each image counted once.

        A collective call: rank zero computes, all processes return the scores.
        """
        with collective() as group:
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
        with collective() as group:
            images = self._gathered(group)
        if images is None:
            return
        with complete(path) as partial, partial.open("w") as file:
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
        if self.class_agnostic:
            return CocoScores(*(self._recall(images, kind) for kind in ("segm", "bbox")))
        truths = self._by_class([image.truth["labels"] for _, image in images])
        founds = self._by_class([image.labels for _, image in images])
        masks, boxes = [], []
        for truth, found in zip(truths, founds, strict=True):
            entries = (
                [true_entry(*images[image], place) for image, place in truth.tolist()],
                [found_entry(*images[image], place) for image, place in found.tolist()],
            )
            masks.append(precision_recall(*entries, "segm", self.max_detections))
            boxes.append(precision_recall(*entries, "bbox", self.max_detections))
        return CocoScores(self._summary(masks), self._summary(boxes))

    def _recall(self, images: list[tuple[int, EvaluatedImage]], kind: str) -> ApAr:
        recall = recall_of_all(images, kind, self.max_detections)  # (T, A, M)
        by_number = {n: _mean(recall[:, 0, m]) for m, n in enumerate(self.max_detections)}
        by_size = (_mean(recall[:, size, -1]) for size in (1, 2, 3))
        return ApAr(*[None] * 6, by_number, *by_size, [])

    def _by_class(self, labels: list[np.ndarray]) -> list[np.ndarray]:
        """(m, 2) for each class: the images of its instances and their places therein."""
        image = np.repeat(np.arange(len(labels)), [len(part) for part in labels])
        place = _joined(np.arange(len(part)) for part in labels)
        label = _joined(labels)
        order = np.argsort(label, kind="stable")
        bounds = np.searchsorted(label[order], np.arange(1, self.num_classes))
        return np.split(np.stack([image, place], 1)[order], bounds)

    def _summary(self, tables: list[tuple[np.ndarray, np.ndarray]]) -> ApAr:
        precision = np.stack([table for table, _ in tables], 2)  # (T, R, K, A)
        recall = np.stack([table for _, table in tables], 1)  # (T, K, A, M)
        return ApAr(
            _mean(precision[..., 0]),
            _mean(precision[0, ..., 0]),
            _mean(precision[5, ..., 0]),
            *(_mean(precision[..., size]) for size in (1, 2, 3)),
            {limit: _mean(recall[..., 0, m]) for m, limit in enumerate(self.max_detections)},
            *(_mean(recall[..., size, -1]) for size in (1, 2, 3)),
            [_mean(precision[:, :, label, 0]) for label in range(self.num_classes)],
            _curves(precision[..., 0]),
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


def _by_label(truth: TrueInstances) -> TrueInstances:
    order = np.argsort(truth["labels"], kind="stable")
    arrays = {key: truth[key][order] for key in ("boxes", "labels", "crowd", "area")}
    return {**truth, **arrays, "codes": [truth["codes"][index] for index in order]}


def _joined(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _results(
    images: list[tuple[int, EvaluatedImage]], labels: LabelSet, boxes: bool
) -> Iterator[dict]:
    categories: dict[int | None, int] = {}
    for raw, train in sorted(labels.raw_to_train.items()):
        categories.setdefault(train, raw)
    for image_id, image in images:
        for place, label in enumerate(image.labels.tolist()):
            entry = found_entry(image_id, image, place, categories[label])
            if not boxes:
                del entry["bbox"]
            yield entry


def _curves(precision: np.ndarray) -> np.ndarray | None:
    """Mean over the classes (T, R) of precision (T, R, K); None where there is nothing to find."""
    known = precision[..., (precision > -1).all((0, 1))]
    return known.mean(2) if known.shape[2] else None


def _mean(values: np.ndarray) -> float | None:
    found = values[values > -1]
    return found.mean().item() if found.size else None
