"""Training and evaluation of semantic networks."""

from collections.abc import Collection

import numpy as np
from torch import Tensor, nn

from segtrain.contracts import EvalBatch, TrainBatch
from segtrain.headlines import HEADLINES
from segtrain.label_set import LabelSet
from segtrain.metric.boundary import boundary_iou, boundary_matrix
from segtrain.metric.calibration import CalibrationError, calibration_counts, confidence
from segtrain.metric.confusion import (
    ConfusionMatrix,
    confusion_matrix,
    dice,
    mean_of_known,
    scores,
)
from segtrain.metric.image_scores import ImageScores, image_miou
from segtrain.metric.per_image import PerImage
from segtrain.metric.processes import in_split_order
from segtrain.values import ExtraMetric


class SemanticEvaluation(nn.Module):
    """Pixel-wise training, and mIoU and its relatives (see `metric.confusion`).

    Args:
        labels: the classes.
        extra: what is measured beside mIoU: `dice`; `boundary_iou`, see `metric.boundary`;
            `per_image`, see `metric.per_image`; `calibration`, see `metric.calibration`.
        probabilities: whether the scores that inference gives are probabilities; else they are
            logits. Calibration alone asks.
    """

    task = "semantic"
    headline = HEADLINES["semantic"]
    image_score = "miou"

    def __init__(
        self, labels: LabelSet, extra: Collection[ExtraMetric] = (), probabilities: bool = False
    ) -> None:
        super().__init__()
        self.labels = labels
        self.matrix = ConfusionMatrix(labels.num_classes)
        self._image_scores = ImageScores()
        self.probabilities = probabilities
        self.has_dice = "dice" in extra
        self.boundary = ConfusionMatrix(labels.num_classes + 1) if "boundary_iou" in extra else None
        self.per_image = PerImage(labels.num_classes) if "per_image" in extra else None
        self.calibration = CalibrationError() if "calibration" in extra else None

    def terms(
        self,
        model: nn.Module,
        loss: nn.Module,
        batch: TrainBatch,
        weights: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The weighted terms of the loss of one batch."""
        outputs = model(batch["image"])
        if weights is None:
            return loss(outputs, batch["mask"])
        return loss(outputs, batch["mask"], weights)

    def weights(self, model: nn.Module, loss: nn.Module, batch: TrainBatch) -> dict[str, Tensor]:
        """What the loss divides sums over the batch's pixels by."""
        outputs = None if loss.weighs_by_labels else model(batch["image"])
        return loss.weights(outputs, batch["mask"])

    def reset(self) -> None:
        """Before a split."""
        for metric in (self.matrix, self.boundary, self.per_image, self.calibration):
            if metric is not None:
                metric.reset()
        self._image_scores.reset()

    def update(self, found: list[Tensor], batch: EvalBatch) -> None:
        """Adds the scores (K, H, W) of a batch's images."""
        mious, classes = [], (self.labels.num_classes, self.labels.ignore_index)
        for score, mask in zip(found, batch["mask"], strict=True):
            prediction = score.argmax(0)
            counts = confusion_matrix(prediction, mask, *classes)
            self.matrix.update(counts)
            mious.append(image_miou(counts))
            if self.per_image is not None:
                self.per_image.update(counts)
            if self.boundary is not None:
                self.boundary.update(boundary_matrix(prediction, mask, *classes))
            if self.calibration is not None:
                sure = confidence(score, self.probabilities)
                void = self.labels.ignore_index
                self.calibration.update(calibration_counts(sure, prediction, mask, void))
        self._image_scores.add(mious)

    def image_scores(self) -> np.ndarray:
        """(n,) the mIoU of each of the split's images, NaN where all is void; a collective call."""
        return in_split_order(self._image_scores.tolist())

    def confusion(self) -> np.ndarray:
        """(K, K) int64, rows truth; a collective call."""
        return self.matrix.compute().cpu().numpy()

    def compute(self) -> dict:
        """The `metrics` entry of `results.json`."""
        matrix = self.matrix.compute()
        result = scores(matrix)
        per_class = {"iou": result.per_class_iou}
        extra: dict[str, float | None] = {}
        if self.has_dice:
            per_class["dice"] = dice(matrix)
            extra["dice"] = mean_of_known(per_class["dice"])
        if self.boundary is not None:
            per_class["boundary_iou"] = boundary_iou(self.boundary.compute())
            extra["boundary_iou"] = mean_of_known(per_class["boundary_iou"])
        if self.per_image is not None:
            extra |= self.per_image.compute()
        if self.calibration is not None:
            extra["calibration_error"] = self.calibration.compute()
        named = {
            f"per_class_{name}": dict(zip(self.labels.names, values, strict=True))
            for name, values in per_class.items()
        }
        return {
            "miou": result.miou,
            "pixel_accuracy": result.pixel_accuracy,
            "mean_accuracy": result.mean_accuracy,
            "fwiou": result.fwiou,
            **extra,
            **named,
        }
