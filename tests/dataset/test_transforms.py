import random

import albumentations as A
import cv2
import numpy as np
import pytest

from segtrain.dataset.transforms import PhotometricJitter, RandomScaleCrop, train_semantic


def seeded(transform, seed):
    compose = A.Compose([transform])
    compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return compose


def test_masks_get_no_new_values():
    preset = train_semantic((64, 48), (0.3, 3.0), 0.5, 0.4, 0.4, 0.4, 0.1, ignore_index=255)
    rng = np.random.default_rng(0)
    for seed in range(40):
        height, width = rng.integers(1, 150, 2)
        mask = rng.choice(np.array([0, 7, 19], np.uint8), (height, width))
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        preset.set_random_state(np.random.default_rng(seed), random.Random(seed))
        out = preset(image=image, mask=mask)
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
    crop = seeded(RandomScaleCrop((96, 96), (scale, scale), 255), seed=3)
    out = crop(image=image, mask=image[..., 0])["image"]
    match = cv2.matchTemplate(whole, out, cv2.TM_SQDIFF)
    difference = np.sqrt(max(0.0, match.min()) / out.size)
    one_pixel = np.sqrt(np.mean((whole[1:, 1:].astype(float) - whole[:-1, :-1]) ** 2))
    assert difference < 0.6 * one_pixel


def test_image_and_mask_stay_aligned():
    """An image that shows its own label keeps doing so under scale, crop, pad and flip."""
    mask = np.kron(np.random.default_rng(0).integers(0, 2, (8, 10)), np.ones((16, 16)))
    mask = mask.astype(np.uint8)
    image = np.repeat(mask[..., None] * 200, 3, axis=2).astype(np.uint8)
    preset = train_semantic((100, 100), (0.5, 2.0), 0.5, 0, 0, 0, 0, ignore_index=255)
    for seed in range(20):
        preset.set_random_state(np.random.default_rng(seed), random.Random(seed))
        out = preset(image=image, mask=mask)
        valid = out["mask"] != 255
        shown = (out["image"][..., 0] > 100).astype(np.uint8)
        assert (shown == out["mask"])[valid].mean() > 0.97
        assert (out["image"][~valid] == (124, 116, 104)).all()


def test_small_images_are_padded_not_stretched():
    crop = seeded(RandomScaleCrop((64, 64), (1.0, 1.0), 255), seed=0)
    out = crop(image=np.zeros((20, 30, 3), np.uint8), mask=np.zeros((20, 30), np.uint8))
    assert (out["mask"] == 0).sum() == 20 * 30
    assert (out["mask"] == 255).sum() == 64 * 64 - 20 * 30


def test_jitter_strengths():
    image = np.random.default_rng(0).integers(60, 190, (32, 32, 3), dtype=np.uint8)
    same = seeded(PhotometricJitter(0.0, 0.0, 0.0, 0.0), 0)(image=image)["image"]
    assert np.abs(same.astype(int) - image).max() <= 1
    grey = np.repeat(image[..., :1], 3, axis=2)
    turned = seeded(PhotometricJitter(0.0, 0.0, 0.5, 0.5), 1)(image=grey)["image"]
    assert np.abs(turned.astype(int) - grey).max() <= 1  # grey has no hue and no saturation
    factors = [
        seeded(PhotometricJitter(0.3, 0.0, 0.0, 0.0), s)(image=image)["image"].mean() / image.mean()
        for s in range(50)
    ]
    assert 0.69 <= min(factors) < 0.8
    assert 1.2 < max(factors) <= 1.31
