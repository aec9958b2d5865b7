"""Training and evaluation of networks for panoptic segmentation."""

import numpy as np
import torch.distributed as dist
from scipy.ndimage import find_objects
from torch import Tensor, nn

from segtrain.contracts import EvalBatch, Segments, TrainBatch, TrueInstances
from segtrain.headlines import HEADLINES
from segtrain.label_set import LabelSet
from segtrain.masks import encode_crop
from segtrain.metric.coco import CocoEvaluation
from segtrain.metric.confusion import ConfusionMatrix, confusion_matrix, scores
from segtrain.metric.image_scores import ImageScores
from segtrain.metric.panoptic import PanopticQuality, image_quality, panoptic_counts, quality
from segtrain.metric.processes import in_split_order
from segtrain.segments import SegmentMap, index


class PanopticEvaluation(nn.Module):
    """Pixel-wise training; panoptic quality, and the same network's mIoU and mask AP.

    Args:
        labels: the classes, with those whose instances are told apart.
    """

    task = "panoptic"
    headline = HEADLINES["panoptic"]
    image_score = "panoptic_quality"

    def __init__(self, labels: LabelSet) -> None:
        super().__init__()
        self.labels = labels
        self.segments = PanopticQuality(labels.num_classes)
        self.matrix = ConfusionMatrix(labels.num_classes)
        self.instances = CocoEvaluation(labels.num_classes)
        self._image_scores = ImageScores()
        self._seen = 0  # images

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
        """What the loss divides sums over the batch's segments by."""
        outputs = None if loss.weighs_by_labels else model(batch["image"])
        return loss.weights(outputs, batch["mask"])

    def reset(self) -> None:
        """Before a split."""
        for metric in (self.segments, self.matrix, self.instances, self._image_scores):
            metric.reset()
        self._seen = 0

    def update(self, found: list[Segments], batch: EvalBatch) -> None:
        """Adds what was found in a batch's images."""
        qualities, classes = [], (self.labels.num_classes, self.labels.ignore_index)
        for segments, mask in zip(found, batch["mask"], strict=True):
            truth = index(mask)
            counts = panoptic_counts(segments, truth, self.labels.num_classes)
            self.segments.update(counts)
            qualities.append(image_quality(counts))
            self.matrix.update(confusion_matrix(segments["semantic"], mask[..., 0], *classes))
            things = true_things(truth, self.labels.things, self._image_id())
            self.instances.update([segments["instances"]], [things])
            self._seen += 1
        self._image_scores.add(qualities)

    def _image_id(self) -> int:
        """The image's place in the split: of w processes, each has every w-th image."""
        if not (dist.is_available() and dist.is_initialized()):
            return self._seen
        return self._seen * dist.get_world_size() + dist.get_rank()

    def image_scores(self) -> np.ndarray:
        """(n,) the panoptic quality of each of the split's images; a collective call.

        NaN where nothing is and nothing was found.
        """
        return in_split_order(self._image_scores.tolist())

    def confusion(self) -> np.ndarray:
        """(K, K) int64 of the classes of pixels, rows truth; a collective call."""
        return self.matrix.compute().cpu().numpy()

    def compute(self) -> dict:
        """The `metrics` entry of `results.json`; a collective call."""
        things = self.labels.things
        stuff = set(range(self.labels.num_classes)) - things
        own = quality(self.segments.compute())
        pixels = scores(self.matrix.compute())
        masks = self.instances.compute().masks
        parts = {"_things": things, "_stuff": stuff}
        per_class = {"pq": own.pq, "sq": own.sq, "rq": own.rq, "iou": pixels.per_class_iou}
        return {
            **own.means(range(self.labels.num_classes)),
            **{name + part: value for part, classes in parts.items()
               for name, value in own.means(sorted(classes)).items()},
            "miou": pixels.miou,
            "ap": masks.ap,
            "ap50": masks.ap50,
            "ap75": masks.ap75,
            **{f"per_class_{name}": dict(zip(self.labels.names, values, strict=True))
               for name, values in per_class.items()},
        }  # fmt: skip


def true_things(truth: SegmentMap, things: frozenset[int], image_id: int) -> TrueInstances:
    """The segments of an image that are instances, crowds too, as AP is evaluated on them."""
    places = truth.map.cpu().numpy()
    labels, crowd = truth.labels.cpu().numpy(), truth.crowd.cpu().numpy()
    chosen = np.flatnonzero(np.isin(labels, sorted(things)))
    windows = find_objects(places.astype(np.int32), max_label=len(labels))
    boxes, area, codes = np.zeros((len(chosen), 4), np.float32), np.zeros(len(chosen)), []
    for row, segment in enumerate(chosen.tolist()):
        rows, columns = windows[segment]
        crop = places[rows, columns] == segment + 1
        boxes[row] = columns.start, rows.start, columns.stop, rows.stop
        area[row] = np.count_nonzero(crop)
        codes.append(encode_crop(crop, columns.start, rows.start, places.shape))
    return {
        "boxes": boxes,
        "labels": labels[chosen],
        "crowd": crowd[chosen],
        "area": area.astype(np.float32),
        "codes": codes,
        "size": places.shape,
        "image_id": image_id,
    }
