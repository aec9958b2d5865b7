import numpy as np
import pytest

from segtrain.dataset.labels import VOC
from segtrain.report.drawing import draw_instances, fit, shorten, typeface


def draw(boxes, captions=None, hatched=None, size=(40, 60), classes=None, masks=None, side=240):
    boxes = np.array(boxes, float).reshape(-1, 4)
    count = len(boxes)
    return draw_instances(
        np.full((*size, 3), 90, np.uint8),
        boxes,
        np.arange(1, count + 1) if classes is None else np.array(classes),
        np.zeros((count, *size), np.uint8) if masks is None else masks,
        captions or ["x"] * count,
        np.zeros(count, bool) if hatched is None else np.array(hatched),
        VOC,
        side,
    )


def test_boxes_beyond_the_image_and_without_area():
    picture = draw([[-20, -20, 90, 90], [70, 50, 80, 60], [5, 5, 5, 5], [9, 9, 4, 4]])
    assert picture.shape == (160, 240, 3)
    assert (picture[0, 100] == VOC.palette[1]).all()
    assert (picture[-1, 100] == VOC.palette[1]).all()


def test_nothing_is_the_image_itself():
    assert (draw([]) == fit(np.full((40, 60, 3), 90, np.uint8), 240)).all()


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (700, 500), (3, 3)])
def test_odd_sizes(size):
    height, width = size
    masks = np.ones((1, *size), np.uint8)
    picture = draw([[0, 0, width, height]], size=size, masks=masks, side=100)
    assert max(picture.shape) == 100
    assert picture.dtype == np.uint8


def test_smaller_masks_stay_on_top():
    masks = np.zeros((2, 40, 60), np.uint8)
    masks[0, 15:25, 20:40] = masks[1] = 1
    picture = draw([[20, 15, 40, 25], [0, 0, 60, 40]], masks=masks)
    for place, train_id in (((80, 120), 1), ((130, 40), 2)):
        expected = 0.55 * np.array(VOC.palette[train_id]) + 0.45 * 90
        assert np.abs(picture[place] - expected).max() <= 1


def test_instances_of_a_class_differ():
    masks = np.zeros((2, 40, 60), np.uint8)
    masks[0, 20:, :20] = masks[1, 20:, 40:] = 1
    picture = draw([[0, 20, 20, 40], [40, 20, 60, 40]], classes=[3, 3], masks=masks)
    assert np.abs(picture[120, 40].astype(int) - picture[120, 200]).max() > 30


def test_captions_stay_inside_and_do_not_hide_one_another():
    plain = draw([[50, 0, 60, 10]] * 5)
    words = draw([[50, 0, 60, 10]] * 5, ["a long name 0.93"] * 5)
    changed = np.argwhere((plain != words).any(-1))
    assert changed[:, 1].min() > 100  # moved to the left, not cut
    assert len(np.unique(changed[:, 0])) < 60  # three places for one box, then none


def test_long_captions_lose_their_middle():
    font = typeface(12)
    assert shorten("dining table 0.93", 150, font) == "dining table 0.93"
    short = shorten("quite a long name of a class 0.93", 150, font)
    assert short.startswith("quite")
    assert short.endswith("0.93")
    assert font.getlength(short) <= 150
