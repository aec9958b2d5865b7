import json
import random

import albumentations as A
import cv2
import numpy as np
import pytest
from conftest import composed
from scipy.ndimage import map_coordinates

from segtrain.assembly import build_data
from segtrain.configuration.folder import options
from segtrain.dataset.instances import mask_boxes, target_from_masks, whole_masks
from segtrain.dataset.random_colours import RandomColours
from segtrain.dataset.scale_crop import RandomScaleCrop
from segtrain.dataset.transforms import (
    InstancePreset,
    SemanticPreset,
    train_semantic,
)
from segtrain.segments import pack


def preset_of(name, folder_set):
    """Preset and labels; sets of one's own are given one."""
    own = name.startswith(("folder", "coco_json"))
    root = [f"dataset.source.root={folder_set}"] if own else []
    names = [path.name for path in sorted((folder_set / "images").iterdir())]
    images = [{"id": name, "file_name": name} for name in names]
    categories = [{"id": n, "name": name, "isthing": n % 2} for n, name in enumerate("xyz")]
    content = {"images": images, "annotations": [], "categories": categories}
    (folder_set / "instances.json").write_text(json.dumps(content))
    data = build_data(composed(f"dataset={name}", *root))
    return data.transform, data.labels


@pytest.mark.parametrize("name", options("dataset"))
def test_labels_survive_the_preset_of_every_set(name, folder_set, monkeypatch):
    """No value that the labels did not have, nothing but void where there was nothing."""
    monkeypatch.setenv("SEGTRAIN_CACHE", str(folder_set / "cache"))
    preset, labels = preset_of(name, folder_set)
    rng = np.random.default_rng(0)
    for seed in range(6):
        height, width = rng.integers(20, 300, 2)
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        chosen = rng.choice(labels.num_classes, 3).astype(np.uint8)
        mask = np.kron(rng.choice(chosen, (10, 10)), np.ones((30, 30), np.uint8))[:height, :width]
        if isinstance(preset, SemanticPreset):
            if labels.things is not None:
                mask = pack(mask, mask.astype(int) * 300)
            out, ids = preset(image, mask, (seed,))
            assert out.shape[:2] == ids.shape[:2]
            assert ids.shape[2:] == mask.shape[2:]
            depth = 1 if mask.ndim == 2 else mask.shape[2]
            bytes_of = 256 ** np.arange(depth)
            before, after = (set(np.unique(each.reshape(-1, depth) @ bytes_of).tolist())
                             for each in (mask, ids))  # fmt: skip
            assert after <= before | {256**depth - 1}
            continue
        masks = np.stack([mask == chosen[0], mask >= 0, mask == chosen[1]])
        masks[0, :3, :3] = masks[2, -3:, -3:] = True  # not empty, also when made smaller
        target = target_from_masks(masks, chosen.tolist(), np.array([0, 1, 0], bool), 7)
        out, kept = preset(image, target, (seed,))
        assert kept["labels"].tolist() == [chosen[0], chosen[2]]  # the crowd is left out
        shown = whole_masks(kept, out.shape[:2])
        assert set(np.unique(shown)) <= {0, 1}
        scale = out.shape[0] / height
        for drawn, box in zip(mask_boxes(shown), kept["boxes"].numpy(), strict=True):
            assert np.abs(drawn - box).max() <= scale + 1  # one source pixel
            assert (box[:2] >= 0).all()
            assert (box[2:] <= out.shape[1::-1]).all()


@pytest.mark.parametrize("rotation", [0.0, 25.0])
def test_panoptic_labels_go_where_one_byte_a_pixel_would(rotation):
    """Each pixel's three bytes stay together, through scale, rotation, crop, padding and flip."""
    rng = np.random.default_rng(0)
    preset = train_semantic((60, 80), (0.4, 2.0), rotation, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0)
    pixels = rng.integers(0, 255, (12, 3), dtype=np.uint8)
    table = np.full((256, 3), 255, np.uint8)
    table[:12] = pixels
    for seed in range(8):
        segments = np.kron(rng.integers(0, 12, (9, 7)), np.ones((10, 11), int)).astype(np.uint8)
        image = rng.integers(0, 256, (*segments.shape, 3), dtype=np.uint8)
        expected = table[preset(image, segments, (seed,))[1]]
        assert np.array_equal(preset(image, table[segments], (seed,))[1], expected)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (800, 1067)), ((640, 480), (1067, 800)), ((400, 1000), (533, 1333))],
)
def test_shorter_side_unless_the_longer_gets_too_long(size, expected):
    image = np.zeros((*size, 3), np.uint8)
    target = target_from_masks(np.ones((1, *size), bool), [0], np.zeros(1, bool), 0)
    out, kept = InstancePreset([800, 800], 1333, 0.0)(image, target, (0,))
    assert out.shape[:2] == expected
    assert kept["boxes"].tolist() == [[0, 0, expected[1], expected[0]]]


def test_flip_of_instances():
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    masks = np.zeros((1, 4, 5), bool)
    masks[0, 1:3, :2] = True
    target = target_from_masks(masks, [0], np.zeros(1, bool), 0)
    out, flipped = InstancePreset([4, 4], 99, 1.0)(image, target, (0,))
    assert (out == image[:, ::-1]).all()
    assert flipped["boxes"].tolist() == [[3, 1, 5, 3]]
    assert flipped["windows"].tolist() == [[2, 0, 5, 4]]
    assert (whole_masks(flipped, (4, 5))[0] == masks[0, :, ::-1]).all()


def test_shorter_side_is_any_length_of_its_range():
    image = np.zeros((10, 20, 3), np.uint8)
    target = target_from_masks(np.ones((1, 10, 20), bool), [0], np.zeros(1, bool), 0)
    preset = InstancePreset([30, 34], 99, 0.5)
    lengths = [preset(image, target, (seed,))[0].shape[0] for seed in range(100)]
    assert set(lengths) == {30, 31, 32, 33, 34}
    with pytest.raises(ValueError, match="short_side is"):
        InstancePreset([34, 30], 99, 0.5)


def seeded(transform, seed):
    compose = A.Compose([transform])
    compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return compose


@pytest.mark.parametrize(("rotation", "blur"), [(0.0, 0.0), (30.0, 0.5)])
def test_masks_get_no_new_values(rotation, blur):
    preset = train_semantic((64, 48), (0.3, 3.0), rotation, 0.5, blur, 0.4, 0.4, 0.4, 0.1)
    rng = np.random.default_rng(0)
    for seed in range(40):
        height, width = rng.integers(1, 150, 2)
        mask = rng.choice(np.array([0, 7, 19], np.uint8), (height, width))
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        out = dict(zip(("image", "mask"), preset(image, mask, (seed,)), strict=True))
        assert out["image"].shape == (64, 48, 3)
        assert out["mask"].shape == (64, 48)
        assert out["image"].dtype == out["mask"].dtype == np.uint8
        assert set(np.unique(out["mask"])) <= set(np.unique(mask)) | {255}


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.0, 1.7, 2.0])
def test_equals_resizing_everything_first(scale):
    """The window alone, resized, shows what the resized whole shows there, to below a pixel."""
    smooth = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = cv2.resize(smooth, (320, 240), interpolation=cv2.INTER_CUBIC)
    whole = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    crop = seeded(RandomScaleCrop((96, 96), (scale, scale), 0.0, 255), seed=3)
    out = crop(image=image, mask=image[..., 0])["image"]
    match = cv2.matchTemplate(whole, out, cv2.TM_SQDIFF)
    difference = np.sqrt(max(0.0, match.min()) / out.size)
    one_pixel = np.sqrt(np.mean((whole[1:, 1:].astype(float) - whole[:-1, :-1]) ** 2))
    assert difference < 0.6 * one_pixel


@pytest.mark.parametrize("rotation", [0.0, 25.0])
def test_image_and_mask_stay_aligned(rotation):
    """An image that shows its own label keeps doing so under scale, turn, crop, pad and flip."""
    mask = np.kron(np.random.default_rng(0).integers(0, 2, (8, 10)), np.ones((16, 16)))
    mask = mask.astype(np.uint8)
    image = np.repeat(mask[..., None] * 200, 3, axis=2).astype(np.uint8)
    preset = train_semantic((100, 100), (0.5, 2.0), rotation, 0.5, 0.0, 0, 0, 0, 0)
    for seed in range(20):
        out = dict(zip(("image", "mask"), preset(image, mask, (seed,)), strict=True))
        valid = out["mask"] != 255
        shown = (out["image"][..., 0] > 100).astype(np.uint8)
        assert (shown == out["mask"])[valid].mean() > 0.97
        void = (~valid).astype(np.uint8)
        if rotation:  # the image's edge is interpolated
            void = cv2.erode(void, np.ones((3, 3)))
        assert (out["image"][void > 0] == (124, 116, 104)).all()


def test_small_images_are_padded_not_stretched():
    crop = seeded(RandomScaleCrop((64, 64), (1.0, 1.0), 0.0, 255), seed=0)
    out = crop(image=np.zeros((20, 30, 3), np.uint8), mask=np.zeros((20, 30), np.uint8))
    assert (out["mask"] == 0).sum() == 20 * 30
    assert (out["mask"] == 255).sum() == 64 * 64 - 20 * 30


def mapping(crop, shape, seed):
    """(2, 3) map of a crop's (x, y) to the source's, read off an image that shows where it is."""
    y, x = np.indices(shape)
    image = np.stack([x, y, x], axis=2).astype(np.uint8)
    out = seeded(crop, seed)(image=image, mask=np.zeros(shape, np.uint8))
    rows, columns = np.nonzero(cv2.erode((out["mask"] == 0).astype(np.uint8), np.ones((5, 5))))
    places = np.stack([columns, rows, np.ones_like(rows)], axis=1)
    shown = out["image"][rows, columns, :2].astype(float)
    matrix, *_ = np.linalg.lstsq(places, shown, rcond=None)
    assert np.abs(places @ matrix - shown).max() < 1.5  # affine, no part moved on its own
    return matrix.T


def test_rotation_is_uniform_and_keeps_right_angles():
    shape, angles = (240, 250), []
    for seed in range(150):
        matrix = mapping(RandomScaleCrop((90, 120), (0.7, 1.5), 30.0, 255), shape, seed)[:, :2]
        stretch = np.linalg.svd(matrix, compute_uv=False)
        assert stretch[0] < 1.04 * stretch[1]
        assert 0.64 < stretch.mean() < 1.45  # source pixels per pixel
        assert np.linalg.det(matrix) > 0
        angles.append(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))
    assert np.abs(angles).max() < 31
    counts = np.histogram(angles, 5, (-30, 30))[0]
    assert counts.min() > 15  # 30 expected
    assert counts.max() < 48


@pytest.mark.parametrize("seed", range(6))
def test_rotation_equals_interpolating_the_whole_image(seed):
    """Against scipy at each pixel's place in the source, image and mask."""
    shape = (240, 250)
    smooth = np.random.default_rng(seed).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    image = cv2.resize(smooth, shape[::-1], interpolation=cv2.INTER_CUBIC)
    mask = np.kron(np.arange(16).reshape(4, 4), np.ones((60, 63)))[:, :250].astype(np.uint8)
    crop = RandomScaleCrop((150, 170), (0.8, 1.6), 40.0, 255)
    out = seeded(crop, seed)(image=image, mask=mask)
    y, x = np.indices((150, 170))
    matrix = mapping(crop, shape, seed)
    x, y = matrix @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    inside = (x > 1) & (y > 1) & (x < 248) & (y < 238)
    outside = (x < -1.5) | (y < -1.5) | (x > 250.5) | (y > 240.5)
    ids = out["mask"].ravel()
    assert (ids[outside] == 255).all()
    assert (ids[inside] == map_coordinates(mask, [y, x], order=0)[inside]).mean() > 0.98
    for channel in range(3):
        expected = map_coordinates(image[..., channel].astype(float), [y, x], order=1)
        difference = expected[inside] - out["image"][..., channel].ravel()[inside]
        assert np.abs(difference).mean() < 1
        assert np.abs(difference).max() < 12


def test_rotation_leaves_nothing_void_that_the_image_can_fill():
    crop = RandomScaleCrop((60, 80), (1.0, 1.5), 45.0, 255)
    for seed in range(30):
        out = seeded(crop, seed)(
            image=np.full((120, 110, 3), 9, np.uint8), mask=np.ones((120, 110), np.uint8)
        )
        assert (out["mask"] == 1).all()
        assert (out["image"] == 9).all()


def test_without_rotation_no_angle_is_drawn():
    """So that what was trained before rotation came can be resumed and repeated."""
    crop, ours, expected = (
        RandomScaleCrop((6, 8), (0.5, 2.0), 0.0, 255),
        *map(random.Random, (5, 5)),
    )
    crop.set_random_state(np.random.default_rng(0), ours)
    drawn = crop.get_params_dependent_on_data({"shape": (40, 50, 3)}, {})
    scale = expected.uniform(0.5, 2.0)
    for axis, (length, size) in enumerate([(40, 6), (50, 8)]):
        visible = round(size / scale)
        start = expected.randint(0, length - visible)
        assert drawn["window"][axis] == slice(start, start + visible)
        assert drawn["offset"][axis] == expected.randint(0, 0)
    assert ours.getstate() == expected.getstate()


def test_blur_spreads_over_5_pixels_of_the_image_alone():
    image, mask = np.zeros((21, 21, 3), np.uint8), np.zeros((21, 21), np.uint8)
    image[10, 10], mask[10, 10] = 250, 3
    preset = train_semantic((21, 21), (1.0, 1.0), 0.0, 0.0, 0.5, 0, 0, 0, 0)
    blurred = 0
    for seed in range(200):
        out, ids = preset(image, mask, (seed,))
        assert (ids == mask).all()
        if (out == image).all():
            continue
        blurred += 1
        assert out[8:13, 8:13].sum() == out.sum()
        assert abs(int(out[..., 0].sum()) - 250) < 13  # half a level each of 25 pixels
        assert out[10, 10, 0] == out.max() < 200
    assert 75 < blurred < 125


def test_random_colours_are_many_and_a_function_of_the_seed():
    """Masks and places of pixels stay; an image that is one colour stays one colour."""
    preset, again = (
        train_semantic((20, 24), (1.0, 1.0), 0.0, 0.0, 0.0, 0, 0, 0, 0, RandomColours(2, 0.8))
        for _ in range(2)
    )
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
    image[:, :12] = (90, 120, 60)
    mask = rng.integers(0, 9, (20, 24), dtype=np.uint8)
    again(image, mask, (77,))
    seen = set()
    for seed in range(40):
        out, ids = preset(image, mask, (seed,))
        assert out.dtype == np.uint8
        assert (ids == mask).all()
        assert (out[:, :11] == out[0, 0]).all()  # sharpening reaches one pixel
        assert (out == again(image, mask, (seed,))[0]).all()
        seen.add(out.tobytes())
    assert len(seen) > 25


@pytest.mark.parametrize(
    ("scale_to", "shape", "visible"),
    [
        ("source", (200, 400), (64, 64)),
        ("fit", (200, 400), (32, 64)),
        ("cover", (200, 400), (64, 64)),
        ("source", (20, 40), (20, 40)),
        ("fit", (20, 40), (32, 64)),
        ("cover", (20, 40), (64, 64)),
    ],
)
def test_what_a_scale_of_one_is(scale_to, shape, visible):
    """In a crop of 64x64 pixels of images that are larger or smaller."""
    preset = train_semantic((64, 64), (1.0, 1.0), 0.0, 0.5, 0.0, 0, 0, 0, 0, scale_to=scale_to)
    mask = preset(np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8), (3,))[1]
    rows, columns = np.nonzero(mask == 0)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == visible
