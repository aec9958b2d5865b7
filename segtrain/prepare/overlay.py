"""One training sample as a picture: the image, and its labels over it."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from segtrain.contracts import TrainInstances
from segtrain.dataset.instances import whole_masks
from segtrain.label_set import LabelSet
from segtrain.report.drawing import draw_instances, fit, paint_regions

PICTURE_SIDE = 336  # longer side of a picture, in pixels


class Sample(NamedTuple):
    """One training sample as the network gets it, before normalisation."""

    name: str
    image: np.ndarray  # (H, W, 3) uint8 RGB, after augmentation
    label: np.ndarray | TrainInstances  # (H, W) uint8 train ids, 255 void; or objects

    @property
    def instances(self) -> TrainInstances | None:
        """The label of an instance set's sample."""
        return None if isinstance(self.label, np.ndarray) else self.label

    @property
    def masks(self) -> np.ndarray:
        """(n, H, W) uint8, 0 or 1: the objects of an instance set's sample."""
        return whole_masks(self.label, self.image.shape[:2])


def draw_sample(sample: Sample, labels: LabelSet) -> tuple[Image.Image, Image.Image]:
    """Image and overlay, scaled to PICTURE_SIDE."""
    image, void = fit(sample.image, PICTURE_SIDE), labels.num_classes
    if sample.instances is None:
        colours, hatched = np.array([*labels.palette, (70, 70, 70)]), np.arange(void + 1) == void
        overlay = paint_regions(
            image, np.minimum(sample.label, void), colours, hatched, np.full(void + 1, True)
        )
    else:
        classes = sample.instances["labels"].numpy()
        overlay = draw_instances(
            sample.image,
            sample.instances["boxes"].numpy(),
            classes,
            sample.masks,
            captions=[labels.names[label] for label in classes],
            hatched=np.zeros(len(classes), bool),
            labels=labels,
            max_side=PICTURE_SIDE,
        )
    return Image.fromarray(image), Image.fromarray(overlay)
