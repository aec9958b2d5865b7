"""Samples made of several, instances: masks, boxes and areas say what is seen."""

import cv2
import numpy as np
import pytest

from segtrain.dataset.instance_mixing import CopyPaste, Mosaic
from segtrain.dataset.instances import mask_boxes, target_from_masks
from segtrain.dataset.labels import SHAPES_INSTANCES
from segtrain.dataset.shape_instances import shape_instances
from segtrain.dataset.stream import TrainStream
from segtrain.dataset.transforms import InstancePreset

SIZE = (60, 80)


def read(ahead: int, size=(48, 64)):
    """Rectangles of one colour each: red how far ahead, green which object from 1 on, 0 none."""
    rng = np.random.default_rng(ahead)
    image = np.zeros((*size, 3), np.uint8)
    image[..., 0] = 100 + ahead
    masks = np.zeros((4, *size), bool)
    for number in range(4):
        top, left = rng.integers(0, size[0] - 20), rng.integers(0, size[1] - 20)
        area = slice(top, top + rng.integers(3, 20)), slice(left, left + rng.integers(3, 20))
        masks[:, *area] = False
        masks[number, *area] = True
        image[..., 1][area] = 60 * (number + 1)
    image[..., 2] = 77
    shown = masks.any((1, 2))
    crowd = np.array([False, True, False, False])[shown]
    labels = np.arange(4)[shown].tolist()
    return image, target_from_masks(masks[shown], labels, crowd, ahead)


def captured(mix, seed):
    """The mixed image and instances, before any preset."""
    return mix(read, lambda image, target, seed: (image, target), seed)


MIXES = {
    "copy_paste": CopyPaste(1.0, SIZE, (0.3, 2.0), 0.5, least_area=6),
    "mosaic": Mosaic(1.0, SIZE, (0.8, 2.0), least_area=6),
}


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_masks_boxes_and_areas_are_of_what_is_seen(mix):
    several = 0
    for seed in range(40):
        image, target = captured(mix, (seed, 1))
        masks = target["masks"].astype(bool)
        assert image.shape[:2] == masks.shape[1:] == SIZE
        assert masks.sum(0).max() <= 1  # what is hidden is no part of a mask
        assert target["area"].tolist() == masks.sum((1, 2)).tolist()
        assert target["area"].min() >= 6
        assert (target["boxes"] == mask_boxes(masks)).all()
        assert target["image_id"] == 0
        sources = set()
        for mask, label in zip(masks, target["labels"], strict=True):
            # resizing blends edges
            inner = cv2.erode(mask.astype(np.uint8), np.ones((5, 5))).astype(bool)
            if inner.any():
                assert abs(np.median(image[inner, 1]) - 60 * (label + 1)) <= 1
                sources.add(int(np.median(image[inner, 0])))
        several += len(sources) > 1
    assert several > 15


def test_mosaics_show_four_images():
    image, _ = captured(Mosaic(1.0, SIZE, (1.0, 1.0), 1), (3,))
    assert np.unique(image[..., 0]).size >= 4


def test_crowds_are_never_pasted_and_stay_below():
    for seed in range(30):
        image, target = captured(CopyPaste(1.0, SIZE, (1.0, 1.0), 0.0, 1), (seed,))
        assert target["crowd"].sum() <= 1
        for mask in target["masks"][target["crowd"]].astype(bool):
            assert np.median(image[mask, 0]) == 100


def test_tiny_objects_are_dropped_and_an_image_without_objects_stays():
    own = read(0)
    for mix in (CopyPaste(1.0, SIZE, (0.5, 0.5), 0.0, 10**4), Mosaic(1.0, SIZE, (1.0, 1.0), 10**4)):
        image, target = captured(mix, (0,))
        assert (image == own[0]).all()
        assert (target["masks"] == own[1]["masks"]).all()


def test_what_is_not_mixed_is_what_it_was():
    for mix in (CopyPaste(0.0, SIZE, (1.0, 1.0), 0.5, 1), Mosaic(0.0, SIZE, (1.0, 1.0), 1)):
        assert (captured(mix, (0,))[0] == read(0)[0]).all()


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_a_position_gives_the_same_sample_again(mix):
    def stream():
        source = shape_instances("train", SHAPES_INSTANCES, {"train": 8}, (64, 64), 0)
        return TrainStream(source, InstancePreset([64, 64], 96, 0.5), 1, mix)

    first, again = stream(), stream()
    again[3]
    for position in (5, 6):
        (image, target, name), (same, equal, _) = first[position], again[position]
        assert (image == same).all()
        assert all((target[key] == equal[key]).all() for key in target)
        assert name == first.source.name(first._index(position))
    assert not np.array_equal(first[5][0], first[6][0])
