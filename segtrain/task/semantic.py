"""Training and evaluation of semantic networks."""

import numpy as np
from torch import Tensor, nn

from segtrain.contracts import EvalBatch, LabelSet, TrainBatch
from segtrain.metric.confusion import ConfusionMatrix, confusion_matrix, scores
from segtrain.metric.image_scores import ImageScores, image_miou
from segtrain.metric.processes import in_split_order


class SemanticEvaluation(nn.Module):
    """Pixel-wise training, and mIoU and its relatives (see `metric.confusion`).

    Args:
        labels: the classes.
    """

    task = "semantic"
    headline = "miou"
    image_score = "miou"

    def __init__(self, labels: LabelSet) -> None:
        super().__init__()
        self.labels = labels
        self.matrix = ConfusionMatrix(labels.num_classes)
        self._image_scores = ImageScores()

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
        self.matrix.reset()
        self._image_scores.reset()

    def update(self, found: list[Tensor], batch: EvalBatch) -> None:
        """Adds the scores (K, H, W) of a batch's images."""
        mious = []
        for score, mask in zip(found, batch["mask"], strict=True):
            counts = confusion_matrix(
                score.argmax(0), mask, self.labels.num_classes, self.labels.ignore_index
            )
            self.matrix.update(counts)
            mious.append(image_miou(counts))
        self._image_scores.add(mious)

    def image_scores(self) -> np.ndarray:
        """(n,) the mIoU of each of the split's images, NaN where all is void; a collective call."""
        return in_split_order(self._image_scores.tolist())

    def confusion(self) -> np.ndarray:
        """(K, K) int64, rows truth; a collective call."""
        return self.matrix.compute().cpu().numpy()

    def compute(self) -> dict:
        """The `metrics` entry of `results.json`."""
        result = scores(self.matrix.compute())
        return {
            "miou": result.miou,
            "pixel_accuracy": result.pixel_accuracy,
            "mean_accuracy": result.mean_accuracy,
            "fwiou": result.fwiou,
            "per_class_iou": dict(zip(self.labels.names, result.per_class_iou, strict=True)),
        }
