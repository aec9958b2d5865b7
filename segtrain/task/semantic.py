"""Training and evaluation of semantic networks."""

from torch import Tensor, nn

from segtrain.contracts import EvalBatch, LabelSet, TrainBatch
from segtrain.metric.confusion import ConfusionMatrix, scores


class SemanticEvaluation(nn.Module):
    """Pixel-wise training, and mIoU and its relatives (see `metric.confusion`).

    Args:
        labels: the classes.
    """

    task = "semantic"
    headline = "miou"

    def __init__(self, labels: LabelSet) -> None:
        super().__init__()
        self.labels = labels
        self.matrix = ConfusionMatrix(labels.num_classes, labels.ignore_index)

    def terms(self, model: nn.Module, loss: nn.Module, batch: TrainBatch) -> dict[str, Tensor]:
        """The weighted terms of the loss of one batch."""
        return loss(model(batch["image"]), batch["mask"])

    def reset(self) -> None:
        """Before a split."""
        self.matrix.reset()

    def update(self, found: list[Tensor], batch: EvalBatch) -> None:
        """Adds the scores (K, H, W) of a batch's images."""
        for score, mask in zip(found, batch["mask"], strict=True):
            self.matrix.update(score.argmax(0), mask)

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
