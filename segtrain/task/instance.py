"""Training and evaluation of networks for instances and for segment proposals."""

import numpy as np
from torch import Tensor, nn

from segtrain.contracts import Detections, InstanceEvalBatch, InstanceTrainBatch, is_detector
from segtrain.headlines import HEADLINES
from segtrain.label_set import LabelSet
from segtrain.metric.coco import ApAr, CocoEvaluation
from segtrain.metric.image_scores import best_overlap, panoptic_quality
from segtrain.metric.processes import in_split_order
from segtrain.task.padding import padded

MASK_THRESHOLD = 0.5  # Mask R-CNN, 3.1
IMAGE_SCORES = {"instance": "panoptic_quality", "proposal": "best_overlap"}
MAX_DETECTIONS = {"instance": (1, 10, 100), "proposal": (10, 100, 1000)}


class InstanceEvaluation:
    """Training on instances, and COCO's AP and AR of masks and boxes.

    Args:
        labels: the classes.
        task: `instance`; or `proposal`, whose found instances have no class, so that only their
            AR counts.
    """

    def __init__(self, labels: LabelSet, task: str) -> None:
        self.labels = labels
        self.task = task
        self.headline = HEADLINES[task]
        self.image_score = IMAGE_SCORES[task]
        self.evaluation = CocoEvaluation(
            labels.num_classes,
            class_agnostic=task == "proposal",
            max_detections=MAX_DETECTIONS[task],
            mask_threshold=MASK_THRESHOLD,
        )
        self.precision: np.ndarray | None = None  # of masks, see ApAr; of the last evaluation

    def terms(
        self,
        model: nn.Module,
        loss: nn.Module,
        batch: InstanceTrainBatch,
        weights: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The weighted terms of the loss of one batch."""
        if not is_detector(model):
            images, segments = padded(batch)
            return loss(model(images), segments, weights)
        outputs = model(batch["image"], batch["target"])
        return loss(outputs) if weights is None else loss(outputs, weights)

    def weights(
        self, model: nn.Module, loss: nn.Module, batch: InstanceTrainBatch
    ) -> dict[str, Tensor]:
        """What the loss divides sums over the batch's examples by."""
        if not is_detector(model):
            return loss.weights(None, padded(batch)[1])
        return loss.weights(model(batch["image"], batch["target"]))

    def reset(self) -> None:
        """Before a split."""
        self.evaluation.reset()

    def update(self, found: list[Detections], batch: InstanceEvalBatch) -> None:
        """Adds what was found in a batch's images."""
        self.evaluation.update(found, batch["target"])

    def image_scores(self) -> np.ndarray:
        """(n,) how well each of the split's images went, NaN where nothing is to be found.

        A collective call. See `panoptic_quality` and `best_overlap`.
        """
        rate = panoptic_quality if self.task == "instance" else best_overlap
        return in_split_order([rate(image) for image in self.evaluation.images.values()])

    def confusion(self) -> None:
        """Instances have no confusion matrix."""

    def compute(self) -> dict:
        """The `metrics` entry of `results.json`; of boxes with `box_` in front."""
        scores = self.evaluation.compute()
        if self.task == "proposal":
            return recall(scores.masks, "")  # their boxes are windows, wider than the objects
        names = self.labels.names
        self.precision = scores.masks.precision
        return {
            **precision(scores.masks, ""),
            **recall(scores.masks, ""),
            **precision(scores.boxes, "box_"),
            **recall(scores.boxes, "box_"),
            "per_class_ap": dict(zip(names, scores.masks.per_class_ap, strict=True)),
            "per_class_box_ap": dict(zip(names, scores.boxes.per_class_ap, strict=True)),
        }


def precision(scores: ApAr, prefix: str) -> dict[str, float | None]:
    """AP over all overlaps, at two, and by area."""
    return {
        f"{prefix}ap": scores.ap,
        f"{prefix}ap50": scores.ap50,
        f"{prefix}ap75": scores.ap75,
        f"{prefix}ap_small": scores.ap_small,
        f"{prefix}ap_medium": scores.ap_medium,
        f"{prefix}ap_large": scores.ap_large,
    }


def recall(scores: ApAr, prefix: str) -> dict[str, float | None]:
    """AR by the number of detections, and by area at the largest."""
    by_number = {f"{prefix}ar{number}": value for number, value in scores.ar.items()}
    return by_number | {
        f"{prefix}ar_small": scores.ar_small,
        f"{prefix}ar_medium": scores.ar_medium,
        f"{prefix}ar_large": scores.ar_large,
    }
