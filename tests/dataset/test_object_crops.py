import random

import numpy as np
import pytest
import torch
from conftest import composed
from scipy.ndimage import find_objects as slices_of
from scipy.ndimage import label as label_components

from segtrain.configuration.schema import checked
from segtrain.dataset.labels import VOC
from segtrain.dataset.object_crops import Box, cut_out, find_objects, jittered, train_object_crops
from segtrain.dataset.scale_crop import MEAN_RGB
from segtrain.dataset.stream import TrainStream
from segtrain.dataset.transforms import SemanticPreset
from segtrain.dataset.voc import voc
from segtrain.errors import UserError
from segtrain.label_set import VOID


def stage_1(resize=(250, 250), enlarge=1.2, flip=0.0, crop_size=(224, 224)):
    return train_object_crops(crop_size, resize, enlarge, 0.0, "background", flip)


def stage_2(jitter=0.3):
    return train_object_crops((224, 224), (250, 250), 1.2, jitter, "keep", 0.5)


def places(height, width):
    """An image that shows each pixel's column and row."""
    y, x = np.indices((height, width))
    return np.stack([x, y, x], axis=2).astype(np.uint8)


def scanned(mask):
    """Class and (top, bottom, left, right) of all components, by SciPy."""
    boxes = set()
    for train_id in set(np.unique(mask).tolist()) - {0, VOID}:
        components, _ = label_components(mask == train_id, np.ones((3, 3)))
        for rows, columns in slices_of(components):
            boxes.add((train_id, rows.start, rows.stop, columns.start, columns.stop))
    return boxes


def edges(box):
    return (box.y - box.height / 2, box.y + box.height / 2,
            box.x - box.width / 2, box.x + box.width / 2)  # fmt: skip


def test_objects_are_the_components_of_each_class():
    rng = np.random.default_rng(0)
    for _ in range(5):
        coarse = rng.choice(np.array([0, 1, 7, VOID], np.uint8), (6, 8))
        mask = np.kron(coarse, np.ones((15, 15), np.uint8))
        found = find_objects(mask)
        assert len(found) == len({*found})
        assert {(train_id, *edges(box)) for train_id, box in found} == scanned(mask)


def test_void_borders_part_objects_and_small_ones_count_only_alone():
    mask = np.zeros((60, 80), np.uint8)
    mask[10:30, 10:50] = 5
    assert find_objects(mask) == [(5, Box(20, 30, 20, 40))]
    mask[10:30, 29:31] = VOID
    assert len(find_objects(mask)) == 2
    mask[40:50, 40:50] = 6  # 100 pixels
    assert {train_id for train_id, _ in find_objects(mask)} == {5}
    mask[mask == 5] = 0
    assert find_objects(mask) == [(6, Box(45, 45, 10, 10))]


def test_without_a_random_crop_the_enlarged_box_is_shown():
    mask = np.zeros((200, 250), np.uint8)
    mask[50:100, 100:200] = 4  # enlarged: rows 45..105, columns 90..210
    image, ids = stage_1(resize=(120, 120), crop_size=(120, 120))(places(200, 250), mask, (0,))
    assert image.shape == (120, 120, 3)
    assert image[60, [0, -1], 0].tolist() == [90, 209]
    assert abs(image[[0, -1], 60, 1] - np.array([45, 104])).max() <= 1
    assert (ids[10:110, 10:110] == 4).all()
    assert (ids == 4).sum() == 100 * 100


def test_crops_move_inside_the_box_at_its_resolution():
    mask = np.zeros((200, 250), np.uint8)
    mask[50:150, 50:150] = 4  # enlarged by 1.2: 40..160, of which a crop shows 108 of 120 pixels
    starts = set()
    for seed in range(60):
        image, _ = stage_1(resize=(250, 250), crop_size=(225, 225))(places(200, 250), mask, (seed,))
        left, right, top, bottom = (int(v) for v in (*image[9, [0, -1], 0], *image[[0, -1], 9, 1]))
        assert right - left == bottom - top == 107
        assert min(left, top) >= 40
        assert max(right, bottom) < 160
        starts.add((left, top))
    assert {left for left, _ in starts} >= {40, 52}
    assert len(starts) > 40


def test_outside_the_image_is_void():
    mask = np.zeros((100, 100), np.uint8)
    mask[:50, :50] = 4  # enlarged by 2: from -25 to 75
    image, ids = stage_1(resize=(100, 100), enlarge=2.0, crop_size=(100, 100))(
        np.full((100, 100, 3), 7, np.uint8), mask, (0,)
    )
    expected = np.full((100, 100), VOID)
    expected[25:, 25:] = mask[:75, :75]
    assert (ids == expected).all()
    assert (image[expected == VOID] == MEAN_RGB).all()
    assert (image[expected != VOID] == 7).all()


@pytest.mark.parametrize("corner", [(-3, 2), (0, 0), (4, 7), (-9, -9), (30, 2), (2, -40)])
def test_cutting_out_equals_cutting_from_a_padded_array(corner):
    array = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    padded = np.pad(array, ((50, 50), (50, 50), (0, 0)), constant_values=5)
    top, left = corner[0] + 50, corner[1] + 50
    expected = padded[top : top + 6, left : left + 8]
    assert (cut_out(array, corner, (6, 8), (5, 5, 5)) == expected).all()
    assert (cut_out(array[..., 0], corner, (6, 8), 5) == expected[..., 0]).all()


def test_others_become_background_or_stay():
    mask = np.zeros((90, 120), np.uint8)
    mask[20:70, 20:60], mask[20:70, 60:62], mask[20:70, 62:100] = 3, VOID, 8
    image, seen = places(90, 120), {3: 0, 8: 0}
    for seed in range(60):
        values = set(np.unique(stage_1(resize=(224, 224), flip=0.5)(image, mask, (seed,))[1]))
        (chosen,) = values - {0, VOID}
        assert VOID in values
        seen[chosen] += 1
        assert set(np.unique(stage_2()(image, mask, (seed,))[1])) <= {0, 3, 8, VOID}
    assert min(seen.values()) > 15
    assert {3, 8} < set(np.unique(stage_2(jitter=0.0)(image, mask, (0,))[1]))


def test_images_without_objects_give_random_boxes():
    mask = np.zeros((200, 240), np.uint8)
    spans = []
    for seed in range(60):
        image, ids = stage_2()(places(200, 240), mask, (seed,))
        assert (ids == 0).all()
        spans.append([np.ptp(image[100, :, 0]), np.ptp(image[:, 100, 1])])
    shares = np.array(spans) / (0.896 * 240, 0.896 * 200)  # of the sides; a crop shows 224 of 250
    assert shares.min() > 0.48
    assert shares.max() < 1.01
    assert (shares.min(axis=0) < 0.6).all()
    assert (shares.max(axis=0) > 0.9).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 240)])
def test_images_smaller_than_any_crop(size):
    for fill in (0, 5, VOID):
        image, ids = stage_2()(places(*size), np.full(size, fill, np.uint8), (0,))
        assert image.shape == (224, 224, 3)
        assert set(np.unique(ids)) <= {fill, VOID}


def test_jittered_boxes_overlap_the_object():
    """The overlap counted in cells of a grid."""
    box, rng = Box(100, 90, 40, 80), random.Random(0)
    y, x = np.indices((200, 200)) + 0.5

    def cells(other):
        top, bottom, left, right = edges(other)
        return (y > top) & (y < bottom) & (x > left) & (x < right)

    overlaps = []
    for _ in range(200):
        moved = cells(jittered(box, 0.4, rng))
        overlaps.append((moved & cells(box)).sum() / (moved | cells(box)).sum())
    assert min(overlaps) > 0.47
    assert min(overlaps) < 0.55
    assert len(set(overlaps)) > 150
    assert jittered(box, 0.0, rng) == box


def test_equal_seeds_equal_samples():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (150, 200, 3), dtype=np.uint8)
    mask = np.kron(rng.choice(np.array([0, 3, 9, VOID], np.uint8), (5, 5)), np.ones((30, 40)))
    mask = mask.astype(np.uint8)
    image.flags.writeable = mask.flags.writeable = False  # as those of the cache
    preset = stage_2()
    first, other, again = (preset(image, mask, (1, seed)) for seed in (5, 6, 5))
    assert (first[0] == again[0]).all()
    assert (first[1] == again[1]).all()
    assert (first[0] != other[0]).any()


def test_image_and_mask_stay_aligned():
    rng = np.random.default_rng(0)
    mask = np.kron(rng.integers(0, 2, (10, 12)), np.ones((20, 20))).astype(np.uint8)
    image = np.repeat(mask[..., None] * 200, 3, axis=2)
    for seed in range(30):
        out, ids = stage_2()(image, mask, (seed,))
        valid = ids != VOID
        assert ((out[..., 0] > 100) == ids)[valid].mean() > 0.95
        assert ids[valid].mean() > 0.1


def test_wrong_settings_are_named():
    for change in ("others=drop", "jitter=1.5"):
        config = composed("dataset=voc_objects", f"dataset.transform.{change}")
        with pytest.raises(UserError, match=f"transform.{change}: expected (one of|a num)"):
            checked("train", config)
    with pytest.raises(UserError, match=r"crop_size \[300, 224\] is larger than resize"):
        train_object_crops((300, 224), (250, 250), 1.2, 0.0, "keep", 0.5)


def test_real_objects_in_batches(real_data):
    source = voc(str(real_data / "voc2012"), "train", VOC)
    preset = stage_1(flip=0.5)
    assert isinstance(preset, SemanticPreset)
    stream = TrainStream(source, preset, 1)
    samples = [stream[position] for position in range(20)]
    for _, ids, _ in samples:
        assert len(set(np.unique(ids)) - {0, VOID}) == 1
    batch = preset.collate_train(samples)
    assert batch["image"].shape == (20, 3, 224, 224)
    assert batch["mask"].shape == (20, 224, 224)
    assert batch["image"].dtype == batch["mask"].dtype == torch.uint8
