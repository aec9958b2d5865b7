"""Large-scale jitter of instances against a slow version with whole masks."""

import random

import cv2
import numpy as np
import pytest

from segtrain.dataset.coco import CocoInstances
from segtrain.dataset.instances import target_from_masks, whole_masks
from segtrain.dataset.labels import COCO
from segtrain.dataset.scale_crop import MEAN_RGB, fitted_crop
from segtrain.dataset.scale_jitter import ScaleJitter
from segtrain.dataset.transforms import InstancePreset

SIZE = (48, 64)
LARGE = [0.1, 2.0]


def target_of(masks, crowd=None):
    crowd = np.zeros(len(masks), bool) if crowd is None else np.array(crowd)
    return target_from_masks(np.asarray(masks, bool), list(range(len(masks))), crowd, 7)


def slowly(image, target, size, scale_range, flip, rng):
    """The same draws; every mask as large as the crop, and boxes around the source's pixels.

    Returns:
        Image, masks of the objects that are seen, their boxes and their labels.
    """
    _, drawn = fitted_crop(image.shape, size, scale_range, rng)
    mirrored = rng.random() < flip
    (rows, columns), (height, width) = drawn["window"], drawn["target"]
    seen = np.full((*size, 3), MEAN_RGB, np.uint8)
    method = cv2.INTER_AREA if height < rows.stop - rows.start else cv2.INTER_LINEAR
    cut = image[rows, columns]
    seen[:height, :width] = cv2.resize(cut, (width, height), interpolation=method)
    steps = (rows.stop - rows.start) / height, (columns.stop - columns.start) / width
    masks, boxes, labels = [], [], []
    for mask, label, crowd in zip(target["masks"], target["labels"], target["crowd"], strict=True):
        cut = mask[rows, columns]
        if crowd or not cut.any():
            continue
        whole = np.zeros(size, bool)
        whole[:height, :width] = cv2.resize(
            cut, (width, height), interpolation=cv2.INTER_NEAREST_EXACT
        )
        ys, xs = np.nonzero(cut)
        box = np.array([xs.min() / steps[1], ys.min() / steps[0],
                        (xs.max() + 1) / steps[1], (ys.max() + 1) / steps[0]])  # fmt: skip
        if mirrored:
            whole = whole[:, ::-1]
            box[[0, 2]] = size[1] - box[[2, 0]]
        masks.append(whole)
        boxes.append(box)
        labels.append(label)
    return seen[:, ::-1] if mirrored else seen, masks, boxes, labels


def scene(seed):
    """Image (H, W, 3) and four blocks, one of them a crowd and one of a pixel."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(20, 120, 2)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    masks = np.zeros((4, height, width), bool)
    for mask in masks:
        top, left = rng.integers(0, (height - 1, width - 1))
        mask[top : top + rng.integers(1, 40), left : left + rng.integers(1, 40)] = True
        mask[top, left + 1 :] = False
    masks[3] = False
    masks[3, -1, -1] = True
    return image, target_of(masks, [False, True, False, False])


def check(image, target, seed, size):
    """Image, masks, boxes and labels are those of the slow version; how many objects are seen."""
    found, objects = ScaleJitter(size, LARGE)(image, target, 0.5, random.Random(seed))
    seen, masks, boxes, labels = slowly(image, target, size, LARGE, 0.5, random.Random(seed))
    assert found.dtype == np.uint8
    assert (found == seen).all()
    assert objects["labels"].tolist() == labels
    assert len(objects["boxes"]) == len(boxes)
    for mask, box, expected, tight in zip(
        whole_masks(objects, size), objects["boxes"].numpy(), masks, boxes, strict=True
    ):
        np.testing.assert_allclose(box, tight, atol=1e-3)
        assert (mask == expected).all() or (mask.sum() == 1 and not expected.any())
    return len(boxes)


@pytest.mark.parametrize("seed", range(12))
def test_equals_the_slow_version(seed):
    check(*scene(seed), seed, SIZE)


def test_real_objects_equal_the_slow_version(real_data, tmp_path, monkeypatch):
    """Of which a crop shows some, others not."""
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path))
    source = CocoInstances(str(real_data / "coco_instances"), "val2017", COCO, [])
    samples = [source.read(index) for index in range(0, len(source), 16)]
    seen = sum(check(*sample, seed, (128, 128)) for seed, sample in enumerate(samples))
    single = sum(np.count_nonzero(~target["crowd"]) for _, target in samples)
    assert 0 < seen < single


def test_scales_are_relative_to_the_crop():
    """From a tenth of it to twice its size, whatever the image's own."""
    image = np.full((50, 100, 3), 255, np.uint8)
    target = target_of(np.ones((1, 50, 100)))
    jitter, shares = ScaleJitter((200, 200), LARGE), []
    for seed in range(200):
        found, objects = jitter(image, target, 0.0, random.Random(seed))
        assert found.shape == (200, 200, 3)
        (box,) = objects["boxes"].tolist()
        assert box[:2] == [0, 0]
        assert (found[: round(box[3]), : round(box[2])] == 255).all()
        assert (found[round(box[3]) :] == MEAN_RGB).all()
        assert (found[:, round(box[2]) :] == MEAN_RGB).all()
        shares.append(box[3] / 100)  # of the height at scale 1
    assert 0.1 <= min(shares) < 0.2
    assert 1.8 < max(shares) <= 2.0
    assert 0.2 < np.mean(np.array(shares) < 0.575) < 0.3  # uniform


def test_the_crop_lies_anywhere():
    image = np.zeros((100, 100, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(100)[:, None], np.arange(100)
    target = target_of(np.ones((1, 100, 100)))
    crop = ScaleJitter((50, 50), [2.0, 2.0])  # a quarter of the image, at its own resolution
    corners = {tuple(crop(image, target, 0.0, random.Random(n))[0][0, 0, :2]) for n in range(99)}
    assert len(corners) > 80
    assert {int(c) for corner in corners for c in corner} <= set(range(51))


@pytest.mark.parametrize(
    ("masks", "crowd"),
    [(np.zeros((0, 30, 20), bool), []), (np.ones((2, 30, 20), bool), [True, True])],
    ids=["none", "crowds"],
)
def test_images_without_objects(masks, crowd):
    target = target_of(masks, crowd)
    image = np.zeros((30, 20, 3), np.uint8)
    preset = InstancePreset([8, 8], 8, 0.5, ScaleJitter(SIZE, LARGE))
    found, objects = preset(image, target, (0,))
    assert found.shape == (*SIZE, 3)
    assert objects["boxes"].shape == objects["windows"].shape == (0, 4)
    assert len(objects["crops"]) == len(objects["labels"]) == 0


def test_the_presets_flip_is_the_jitters():
    image, target = scene(0)
    jitter = ScaleJitter(SIZE, [0.5, 0.5])
    plain, objects = InstancePreset([8, 8], 8, 0.0, jitter)(image, target, (3,))
    mirrored, others = InstancePreset([8, 8], 8, 1.0, jitter)(image, target, (3,))
    assert (mirrored == plain[:, ::-1]).all()
    assert (whole_masks(others, SIZE) == whole_masks(objects, SIZE)[:, :, ::-1]).all()
    assert others["boxes"][:, 0].tolist() == (SIZE[1] - objects["boxes"][:, 2]).tolist()
