import numpy as np
import pytest
import torch

from segtrain.callback.images import draw_confusion, draw_precision, instance_strip, overlay_strip
from segtrain.dataset.instances import target_from_masks
from segtrain.dataset.labels import SHAPES_INSTANCES, VOC


def test_strip_shows_image_truth_and_prediction():
    image = np.full((40, 60, 3), 100, np.uint8)
    truth, prediction = np.full((40, 60), 15), np.full((40, 60), 12)
    strip = overlay_strip(image, truth, prediction, VOC, max_side=320)
    assert strip.shape == (40, 3 * 60 + 8, 3)
    assert (strip[20, 30] == 100).all()
    for column, ids in ((94, 15), (158, 12)):
        expected = 0.6 * np.array(VOC.palette[ids]) + 0.4 * 100
        assert np.abs(strip[20, column] - expected).max() <= 1
    assert overlay_strip(image, truth, prediction, VOC, max_side=30).shape == (20, 98, 3)


def detections(boxes, scores, labels):
    return {
        "boxes": torch.tensor(boxes).float().view(-1, 4),
        "scores": torch.tensor(scores).float(),
        "labels": torch.tensor(labels).long(),
        "masks": torch.ones(len(scores), 28, 28),
    }


def grey_with_square():
    image = np.full((40, 60, 3), 100, np.uint8)
    masks = np.zeros((2, 40, 60), bool)
    masks[0, 10:30, 10:30] = masks[1, 10:30, 40:] = True
    return image, target_from_masks(masks, [1, 2], np.array([False, True]), 0)


@pytest.mark.parametrize("kind", ["tensors", "arrays"])
def test_strip_of_instances(kind):
    image, truth = grey_with_square()
    found = detections([[10, 10, 30, 30], [40, 10, 60, 30]], [0.9, 0.4], [3, 4])
    if kind == "arrays":
        found = {key: value.numpy() for key, value in found.items()}
    strip = instance_strip(image, truth, found, SHAPES_INSTANCES, max_side=240, min_score=0.5)
    assert strip.shape == (160, 3 * 240 + 8, 3)
    assert (strip[80, 80] == 100).all()
    for left, train_id in ((244, 1), (488, 3)):
        expected = 0.55 * np.array(SHAPES_INSTANCES.palette[train_id]) + 0.45 * 100
        assert np.abs(strip[80, left + 80] - expected).max() <= 1
    assert len(np.unique(strip[90:110, 244 + 180 : 244 + 220].reshape(-1, 3), axis=0)) == 2  # hatch
    assert (strip[80, 488 + 200] == 100).all()  # scores too little


def test_strip_shows_masks_as_they_are_evaluated():
    """Whether the last pixel of a box that ends in its middle belongs to it."""
    image, truth = grey_with_square()
    found = detections([[40.6, 10, 60.6, 30]], [0.9], [3])
    strips = [
        instance_strip(image, truth, {**found, "frames": frames}, SHAPES_INSTANCES, 60, 0.5)
        for frames in ("whole_pixels", "exact")
    ]
    assert (strips[0] != strips[1]).any()


def test_strip_of_proposals():
    image, truth = grey_with_square()
    boxes = [[10, 10, 30, 30], [40, 10, 60, 30], [0, 30, 9, 40]]
    found = detections(boxes, [0.3, 0.2, 0.1], [0, 0, 0])
    strip = instance_strip(image, truth, found, SHAPES_INSTANCES, 240, min_score=0.5, top=2)
    first, second = strip[80, 488 + 80], strip[80, 488 + 200]
    assert np.abs(first.astype(int) - second).max() > 50
    assert (strip[150, 488 + 15] == 100).all()


def test_strip_of_nothing():
    image = np.full((40, 60, 3), 100, np.uint8)
    truth = target_from_masks(np.zeros((0, 40, 60), bool), [], np.zeros(0, bool), 0)
    found = detections([], [], []) | {"masks": torch.zeros(0, 28, 28)}
    strip = instance_strip(image, truth, found, SHAPES_INSTANCES, max_side=60, min_score=0.5)
    assert (strip[:, :60] == strip[:, 64:124]).all()
    assert (strip[:, :60] == strip[:, 128:]).all()


def test_confusion_picture():
    picture = draw_confusion(torch.tensor([[8, 2], [0, 0]]), ("a", "b"))
    assert picture.ndim == 3
    assert picture.dtype == np.uint8
    assert picture.std() > 10


def test_precision_picture():
    falling = np.linspace(1, 0, 101)
    picture = draw_precision(np.stack([falling / (1 + iou) for iou in range(10)]))
    assert picture.shape == (450, 600, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 10
