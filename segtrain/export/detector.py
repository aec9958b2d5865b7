"""A detector as other programs get it, and whether it still finds the same objects."""

import copy
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d, box_iou

from segtrain.inference.detect import Detect

OUTPUTS = ("boxes", "scores", "labels", "masks")
REQUIRED_AGREEMENT = 0.99  # share of objects; a last digit decides which of two boxes is dropped
SAME_IOU = 0.99


def one_detection(inference: Detect) -> Detect:
    """One look at the largest of its sizes; mirroring and voting are left out.

    Images are resized as a graph can have it, by no library.
    """
    return Detect(
        short_sides=[max(inference.short_sides)],
        long_side=inference.long_side,
        flip=False,
        min_score=inference.min_score,
        nms_iou=inference.nms_iou,
        max_detections=inference.max_detections,
        box_voting=None,
        mask_voting=None,
        rounding=inference.rounding,
        frames=inference.frames,
    )


class DeployedDetector(nn.Module):
    """What `one_detection` finds in a picture, as a graph for pictures of one size can have it.

    Args:
        model: a network that finds instances.
        inference: see `one_detection`.
    """

    returns = OUTPUTS

    def __init__(self, model: nn.Module, inference: Detect) -> None:
        super().__init__()
        self.model = with_plain_norms(model).to(memory_format=torch.contiguous_format)
        self.detect = one_detection(inference)
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(1, 3, H, W) uint8 RGB -> its objects, best first.

        Returns:
            boxes (n, 4) x1 y1 x2 y2 in pixels, scores (n,), labels (n,) int64 train ids, and masks
            (n, M, M) of probabilities, stretched over the boxes; all else float32.
        """
        (found,) = self.detect(self.model, [image[0]])
        return tuple(found[name] for name in OUTPUTS)


def with_plain_norms(model: nn.Module) -> nn.Module:
    """A copy whose batch norms are a multiplication and an addition.

    A graph with PyTorch's own would refuse pictures that show no object.
    """
    model = copy.deepcopy(model)
    norms = [name for name, part in model.named_modules() if isinstance(part, nn.BatchNorm2d)]
    for name in norms:
        norm = model.get_submodule(name)
        plain = FrozenBatchNorm2d(norm.num_features, norm.eps)
        plain.load_state_dict(norm.state_dict())
        holder, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(holder), attribute, plain)
    return model


class DetectionComparison(NamedTuple):
    """How far two detectors agree on pictures of one size."""

    size: tuple[int, int]  # height and width
    pictures: int
    objects: int  # that the original found
    largest_difference: float  # of their scores and masks; 0..1
    agreement: float  # share of the objects that both found, 0..1

    @property
    def passed(self) -> bool:
        """Whether the exported network may take the original's place."""
        return self.agreement >= REQUIRED_AGREEMENT

    @property
    def row(self) -> dict[str, str]:
        """Titles and texts of a table."""
        return {
            "size": "x".join(map(str, self.size)),
            "pictures": str(self.pictures),
            "objects": str(self.objects),
            "largest difference": f"{self.largest_difference:.2g}",
            "same objects %": f"{100 * self.agreement:.3f}",
        }


def compare_detections(
    exported: Callable[[Tensor], tuple[Tensor, ...]],
    original: Callable[[Tensor], tuple[Tensor, ...]],
    pictures: list[np.ndarray],
    size: tuple[int, int],
) -> DetectionComparison:
    """Runs both on each picture.

    An object is found by both where the classes are equal and the boxes overlap by SAME_IOU.

    Args:
        exported: an image (1, 3, H, W) uint8 RGB -> what `DeployedDetector` gives.
        original: the same in eager PyTorch.
        pictures: (h, w, 3) uint8 RGB, which are resized.
        size: height and width to which they are.
    """
    differences, objects, common = [0.0], 0, 0
    for picture in pictures:
        resized = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)
        image = torch.from_numpy(resized).permute(2, 0, 1)[None].contiguous()
        with torch.no_grad():
            expected, got = original(image), exported(image)
        boxes, scores, labels, masks = expected
        others, other_scores, other_labels, other_masks = got
        overlaps = box_iou(boxes, others) * (labels[:, None] == other_labels)
        objects += len(boxes)
        if not overlaps.numel():
            continue
        best, partner = overlaps.max(1)
        same = best >= SAME_IOU
        partner = partner[same]
        common += int(same.sum())
        for own, other in ((scores[same], other_scores[partner]),
                           (masks[same], other_masks[partner])):  # fmt: skip
            differences.append(float((own - other).abs().max()) if len(own) else 0.0)
    return DetectionComparison(
        size=size,
        pictures=len(pictures),
        objects=objects,
        largest_difference=max(differences),
        agreement=common / objects if objects else 1.0,
    )
