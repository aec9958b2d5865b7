"""Training and evaluation of networks whose classes may overlap: a yes or no a class and pixel."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segtrain.contracts import EvalBatch, TrainBatch
from segtrain.headlines import HEADLINES
from segtrain.label_set import LabelSet
from segtrain.metric.image_scores import ImageScores
from segtrain.metric.multilabel import DEFAULT, GRID, Hits, ThresholdCounts, best_thresholds, hits
from segtrain.metric.processes import in_split_order
from segtrain.metric.score_counts import ScoreCounts, average_precision
from segtrain.planes import unpack


class MultilabelEvaluation(nn.Module):
    """Pixel-wise training of every class alone; IoU and its relatives, and average precision.

    Masks are what scores at least a class's threshold. Validation chooses those, for the largest
    Dice of each class, unless they are given.

    Args:
        labels: the classes.
        inference: whose `thresholds` are used, and set by validation.
    """

    task = "multilabel"
    headline = HEADLINES["multilabel"]
    image_score = "miou"

    def __init__(self, labels: LabelSet, inference: Any) -> None:
        super().__init__()
        self.labels = labels
        self.inference = inference
        self.chooses = inference.thresholds is None
        given = inference.thresholds or []
        self.grid = sorted({DEFAULT, *GRID, *given})
        self.counts = ThresholdCounts(self.grid, labels.num_classes)
        self.scores = ScoreCounts(labels.num_classes)
        self._image_scores = ImageScores()

    @property
    def thresholds(self) -> list[float]:
        """One a class."""
        return self.inference.thresholds or [DEFAULT] * self.labels.num_classes

    def terms(
        self,
        model: nn.Module,
        loss: nn.Module,
        batch: TrainBatch,
        weights: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The weighted terms of the loss of one batch."""
        return loss(model(batch["image"]), batch["mask"], weights)

    def weights(self, model: nn.Module, loss: nn.Module, batch: TrainBatch) -> dict[str, Tensor]:
        """What the loss divides sums over the batch's pixels by."""
        return loss.weights(None, batch["mask"])

    def reset(self) -> None:
        """Before a split."""
        self.counts.reset()
        self.scores.reset()
        self._image_scores.reset()

    def update(self, found: list[Tensor], batch: EvalBatch) -> None:
        """Adds the probabilities (K, H, W) of a batch's images."""
        places = self._places()
        mious = []
        for scores, packed in zip(found, batch["mask"], strict=True):
            masks, valid = unpack(packed, self.labels.num_classes)
            counts = self.counts.of_image(scores, masks, valid)
            self.counts.update(counts)
            self.scores.update(scores, masks, valid)
            mious.append(image_miou(counts, places))
        self._image_scores.add(mious)

    def choose(self) -> None:
        """After validation: sets the thresholds of the largest Dice; a collective call."""
        if self.chooses:
            counts = self.counts.compute().cpu().numpy()
            self.inference.thresholds = best_thresholds(counts, self.grid)

    def image_scores(self) -> np.ndarray:
        """(n,) the mIoU of each of the split's images, NaN where nothing is; a collective call."""
        return in_split_order(self._image_scores.tolist())

    def confusion(self) -> None:
        """There is none: a pixel may be of several classes."""

    def compute(self) -> dict:
        """The `metrics` entry of `results.json`; a collective call."""
        every = hits(self.counts.compute().cpu().numpy())
        classes, places = range(self.labels.num_classes), self._places()
        own = Hits(*(part[classes, places] if part.shape[1] > 1 else part[:, 0] for part in every))
        precisions = [average_precision(table) for table in self.scores.compute()]
        per_class = {
            "iou": optional(own.iou),
            "dice": optional(own.dice),
            "precision": optional(own.precision),
            "recall": optional(own.recall),
            "average_precision": precisions,
            "threshold": self.thresholds,
        }
        names = {"iou": "miou", "average_precision": "map"}
        means = {names.get(name, name): mean(values) for name, values in per_class.items()
                 if name != "threshold"}  # fmt: skip
        return means | {
            f"per_class_{name}": dict(zip(self.labels.names, values, strict=True))
            for name, values in per_class.items()
        }

    def _places(self) -> list[int]:
        """Where the grid has each class's threshold."""
        return [self.grid.index(threshold) for threshold in self.thresholds]


def image_miou(counts: Tensor, places: list[int]) -> Tensor:
    """The mean IoU over the classes that one image's truth or prediction shows.

    Args:
        counts: (K, 2, T + 1), see `ThresholdCounts`.
        places: of the threshold of each class.

    Returns:
        A scalar on the same device, NaN where no class is; the device is not waited for.
    """
    shown = torch.stack([own[:, place + 1 :].sum(1) for own, place in zip(counts, places,
                                                                        strict=True)])  # fmt: skip
    others, right = shown.unbind(1)
    return (right / (counts[:, 1].sum(1) + others)).nanmean()


def optional(shares: np.ndarray) -> list[float | None]:
    """None where a class has none."""
    return [None if np.isnan(value) else float(value) for value in shares]


def mean(values: list[float | None]) -> float | None:
    """Over the classes that have one."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
