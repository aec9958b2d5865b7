"""One figure an image, which tells good images from bad ones; none of them enters a result."""

import numpy as np
import torch
from pycocotools import mask as rle
from torch import Tensor

from segtrain.metric.matching import EvaluatedImage

SURE_SCORE = 0.5  # detections that are less sure are not shown, and not counted here
FIRST_PROPOSALS = 100
MATCH_IOU = 0.5  # Kirillov et al. 2019, section 4.1
MERGED = 256  # batches


def image_miou(counts: Tensor) -> Tensor:
    """The mean IoU over the classes that one image's truth or prediction shows.

    Args:
        counts: (K, K) of the image, rows truth, columns prediction.

    Returns:
        A scalar on the same device, NaN where all is void; the device is not waited for.
    """
    hits = counts.diagonal()
    return (hits / (counts.sum(0) + counts.sum(1) - hits)).nanmean()


class ImageScores:
    """Figures as they come, on the device that computes them, which is not waited for."""

    def __init__(self) -> None:
        self._batches: list[Tensor] = []

    def reset(self) -> None:
        """Forgets all."""
        self._batches = []

    def add(self, scores: list[Tensor]) -> None:
        """Adds the scalars of a batch's images."""
        self._batches.append(torch.stack(scores))
        if len(self._batches) == MERGED:  # a small tensor takes far more memory than its numbers
            self._batches = [torch.cat(self._batches)]

    def tolist(self) -> list[float]:
        """All of them."""
        return torch.cat(self._batches).tolist() if self._batches else []


def panoptic_quality(image: EvaluatedImage) -> float:
    """Panoptic quality of the detections that are sure: how well they overlap, times F1.

    Kirillov et al. 2019, section 4.1, over all classes together: the IoUs of matched pairs over
    the number of pairs and half that of the rest. Detections inside crowds count for nothing.

    Returns:
        In 0..1, NaN where nothing is there and nothing was found.
    """
    chosen = np.flatnonzero(image.scores >= SURE_SCORE)
    chosen = chosen[np.argsort(-image.scores[chosen], kind="stable")]
    truth = image.truth
    overlaps = _overlaps(image, chosen)
    overlaps *= image.labels[chosen][:, None] == truth["labels"][None]
    crowd = truth["crowd"].astype(bool)
    in_crowd = (overlaps[:, crowd] > 0.5).any(1)
    free = np.where(crowd[None], 0.0, overlaps)
    matched, found = [], 0
    for row, ignored in zip(free, in_crowd, strict=True):
        best = int(row.argmax()) if row.size else -1
        if best >= 0 and row[best] > MATCH_IOU:
            matched.append(row[best])
            free[:, best] = 0.0
        elif ignored:
            continue
        found += 1
    total = (found + np.count_nonzero(~crowd)) / 2
    return float(sum(matched) / total) if total else float("nan")


def best_overlap(image: EvaluatedImage) -> float:
    """How well the first proposals cover the objects: the mean over these of the best IoU.

    Returns:
        In 0..1, NaN where there is no object.
    """
    first = np.argsort(-image.scores, kind="stable")[:FIRST_PROPOSALS]
    single = ~image.truth["crowd"].astype(bool)
    overlaps = _overlaps(image, first)[:, single]
    if not overlaps.shape[1]:
        return float("nan")
    return float(overlaps.max(0, initial=0.0).mean())


def _overlaps(image: EvaluatedImage, chosen: np.ndarray) -> np.ndarray:
    """(m, n) IoU of m chosen detections with n true instances, shares of the former in crowds."""
    size = list(image.truth["size"])
    found = [{"size": size, "counts": image.codes[index]} for index in chosen]
    truth = [{"size": size, "counts": code} for code in image.truth["codes"]]
    if not found or not truth:
        return np.zeros((len(found), len(truth)))
    return np.array(rle.iou(found, truth, image.truth["crowd"].astype(np.uint8).tolist()))
