import numpy as np
import torch

from segtrain.callback.images import draw_confusion, overlay_strip
from segtrain.dataset.labels import VOC


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


def test_confusion_picture():
    picture = draw_confusion(torch.tensor([[8, 2], [0, 0]]), ("a", "b"))
    assert picture.ndim == 3
    assert picture.dtype == np.uint8
    assert picture.std() > 10
