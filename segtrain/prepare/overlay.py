"""One training sample as a picture: the image, and its labels over it."""

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from segtrain.contracts import TrainInstances
from segtrain.dataset.instances import whole_masks
from segtrain.label_set import VOID, LabelSet
from segtrain.planes import unpack as unpack_planes
from segtrain.report.drawing import (
    draw_instances,
    fit,
    instance_shades,
    paint_masks,
    paint_regions,
)
from segtrain.segments import CROWD, keys

PICTURE_SIDE = 336  # longer side of a picture, in pixels
VOID_COLOUR = (70, 70, 70)


class Sample(NamedTuple):
    """One training sample as the network gets it, before normalisation."""

    name: str
    image: np.ndarray  # (H, W, 3) uint8 RGB, after augmentation
    # (H, W) uint8 train ids, 255 void; (H, W, B), see `TrainBatch`; or objects
    label: np.ndarray | TrainInstances

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
    image = fit(sample.image, PICTURE_SIDE)
    if sample.instances is not None:
        overlay = _draw_objects(sample, labels)
    elif labels.overlapping:
        masks = unpack_planes(torch.from_numpy(sample.label), labels.num_classes)[0]
        overlay = paint_masks(image, masks.numpy(), labels)
    elif labels.things is not None:
        overlay = _draw_segments(image, sample.label, labels)
    else:
        void = labels.num_classes
        colours, hatched = np.array([*labels.palette, VOID_COLOUR]), np.arange(void + 1) == void
        overlay = paint_regions(
            image, np.minimum(sample.label, void), colours, hatched, np.full(void + 1, True)
        )
    return Image.fromarray(image), Image.fromarray(overlay)


def _draw_segments(image: np.ndarray, label: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Stuff in its colour, each thing in a shade of its own; crowds and void are striped."""
    found, regions = keys(torch.from_numpy(label)).unique(return_inverse=True)
    classes, numbers = (found >> 16).numpy(), (found & CROWD).numpy()
    void = classes == VOID
    colours = np.tile(VOID_COLOUR, (len(found), 1))
    colours[~void] = instance_shades(classes[~void], labels)
    hatched = void | (numbers == CROWD)
    return paint_regions(
        image, regions.numpy().astype(np.uint16), colours, hatched, np.full(len(found), True)
    )


def _draw_objects(sample: Sample, labels: LabelSet) -> np.ndarray:
    classes = sample.instances["labels"].numpy()
    return draw_instances(
        sample.image,
        sample.instances["boxes"].numpy(),
        classes,
        sample.masks,
        captions=[labels.names[label] for label in classes],
        hatched=np.zeros(len(classes), bool),
        labels=labels,
        max_side=PICTURE_SIDE,
    )
