"""Codes against pycocotools, pasting against torchvision."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as rle
from torchvision.models.detection.roi_heads import paste_masks_in_image

from segtrain.masks import codes_of, decode, encode, encode_crop, paste


def official(masks):
    codes = rle.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
    return [code["counts"] for code in codes]


def random_masks(seed):
    """Noise of any density, full-height columns at either side, empty and full ones."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 40, 2)
    masks = (rng.random((6, height, width)) < rng.random((6, 1, 1))).astype(np.uint8)
    masks[1, :, : width // 2] = 1
    masks[2, :, width // 2 :] = 1
    masks[3, :, width // 3 : width // 2 + 2] = 1
    masks[4], masks[5] = 0, 1
    masks[4, rng.integers(height), rng.integers(width)] = seed % 2
    return masks


@pytest.mark.parametrize("seed", range(60))
def test_codes_are_pycocotools(seed):
    masks = random_masks(seed)
    codes = encode(masks)
    assert codes == official(masks)
    assert codes == encode(masks.astype(bool)) == encode(np.asfortranarray(masks))
    decoded = decode(codes, masks.shape[1:])
    assert decoded.flags.c_contiguous
    assert decoded.dtype == np.uint8
    assert (decoded == masks).all()


def test_large_masks_with_many_runs():
    rng = np.random.default_rng(0)
    masks = (rng.random((2, 480, 640)) < 0.5).astype(np.uint8)
    masks[1, :, 600:] = 1
    assert encode(masks) == official(masks)


def test_no_masks():
    assert encode(np.zeros((0, 4, 5), np.uint8)) == []
    assert decode([], (4, 5)).shape == (0, 4, 5)
    nothing = np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32)
    assert paste(*nothing, (4, 5), 0.5) == []


@pytest.mark.parametrize("box", [(0, 0, 9, 7), (2, 0, 5, 7), (3, 2, 9, 6), (4, 4, 4, 4)])
def test_codes_of_crops(box):
    left, top, right, bottom = box
    whole = np.zeros((1, 7, 9), np.uint8)
    whole[0, top:bottom, left:right] = (
        np.random.default_rng(0).random((bottom - top, right - left)) < 0.7
    )
    crop = whole[0, top:bottom, left:right]
    for part in (crop, crop.astype(bool), np.asfortranarray(crop)):
        assert encode_crop(part, left, top, (7, 9)) == official(whole)[0]


def official_paste(mask, box, size, threshold):
    """Outside the image, torchvision's own way fails."""
    try:
        pasted = paste_masks_in_image(
            torch.from_numpy(mask[None, None]), torch.from_numpy(box[None]), size
        )
    except RuntimeError:
        return None
    return (pasted[0, 0] > threshold).numpy()


@pytest.mark.parametrize("cells", [1, 7, 28])
@pytest.mark.parametrize("side", [0.0, 0.3, 2.0, 10.0, 60.0, 600.0])
def test_pasting_is_torchvisions(cells, side):
    rng = np.random.default_rng(cells)
    outside = 0
    for _ in range(40):
        size = tuple(rng.integers(5, 80, 2).tolist())
        masks = rng.random((1, cells, cells), np.float32)
        corner = rng.uniform(-0.2, 1.1, 2) * size[::-1] - rng.uniform(0, 0.8) * side
        box = np.concatenate([corner, corner + side * rng.uniform(0.5, 1.5, 2)]).astype(np.float32)
        threshold = rng.choice([0.1, 0.3, 0.5, 0.8])
        ours = decode(paste(masks, box[None], size, threshold), size)[0]
        theirs = official_paste(masks[0], box, size, threshold)
        if theirs is None:
            outside += 1
            assert not ours.any()
        else:
            assert np.count_nonzero(ours != theirs) <= 1
    assert outside < 30


def test_pasting_many_at_once():
    rng = np.random.default_rng(1)
    masks, corner = rng.random((20, 14, 14), np.float32), rng.uniform(-10, 90, (20, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0, 60, (20, 2))], 1).astype(np.float32)
    boxes = boxes.clip(0, (100, 80, 100, 80)).astype(np.float32)
    ours = decode(paste(masks, boxes, (80, 100), 0.5), (80, 100))
    theirs = paste_masks_in_image(
        torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), (80, 100)
    )
    assert np.count_nonzero(ours != (theirs[:, 0] > 0.5).numpy()) <= 2
    assert ours.any((1, 2)).sum() > 15


def test_boxes_far_larger_than_the_image():
    boxes = np.array([[-1e7, -1e7, 1e7, 1e7], [-1e9, 3, 1e9, 9], [5, -1e9, 5.5, 1e9]], np.float32)
    masks = np.full((3, 28, 28), 0.9, np.float32)
    pasted = decode(paste(masks, boxes, (40, 60), 0.5), (40, 60))
    assert pasted[0].all()
    assert set(np.flatnonzero(pasted[1].all(1))) >= set(range(3, 9))
    assert pasted[2].all(0)[5]
    assert not pasted[2][:, 8:].any()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_boxes_that_are_no_numbers_show_nothing():
    boxes = np.array([[np.nan, 1, 5, 6], [-np.inf, 0, np.inf, 9]], np.float32)
    pasted = decode(paste(np.ones((2, 7, 7), np.float32), boxes, (10, 10), 0.5), (10, 10))
    assert not pasted.any()


@pytest.mark.parametrize("seed", range(12))
def test_exact_frames_are_sampled_at_the_centres_of_pixels(seed):
    """As a grid of all pixels of the image says, also of boxes that reach beyond it."""
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(5, 60, 2).tolist())
    corner = rng.uniform(-20, 60, (8, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0, 70, (8, 2))], 1).astype(np.float32)
    masks = rng.random((8, 14, 14)).astype(np.float32)
    found = decode(paste(masks, boxes, size, 0.5, "exact"), size)
    for mask, box, own in zip(masks, boxes, found, strict=True):
        y, x = (
            torch.from_numpy((np.arange(side) + 0.5 - box[axis]) / (box[axis + 2] - box[axis]))
            for side, axis in zip(size, (1, 0), strict=True)
        )
        grid = torch.stack(torch.meshgrid(2 * y - 1, 2 * x - 1, indexing="ij")[::-1], 2)[None]
        sampled = F.grid_sample(torch.from_numpy(mask)[None, None].double(), grid.double(),
                                align_corners=False)[0, 0].numpy()  # fmt: skip
        sure = np.abs(sampled - 0.5) > 1e-4
        assert ((own > 0) == (sampled >= 0.5))[sure].all()


def test_exact_frames_without_area_have_no_pixel():
    boxes = np.array([[3, 3, 3, 9], [-9, -9, -1, -1], [30, 3, 40, 9]], np.float32)
    assert not decode(paste(np.ones((3, 4, 4), np.float32), boxes, (12, 12), 0.5, "exact"),
                      (12, 12)).any()  # fmt: skip


def whole_image(count=3, size=(20, 30)):
    """Detections whose masks are of the whole image."""
    masks = torch.rand(count, *size, generator=torch.Generator().manual_seed(0)) > 0.5
    boxes = torch.tensor([[0.0, 0.0, size[1], size[0]]]).repeat(count, 1)
    return {"boxes": boxes, "scores": torch.ones(count), "labels": torch.zeros(count).long(),
            "masks": masks, "frames": "image"}  # fmt: skip


def test_masks_of_the_image_stay_as_they_are():
    found = whole_image()
    assert codes_of(found, (20, 30), 0.5) == official(found["masks"].numpy())
    chosen = np.array([2, 0])
    assert codes_of(found, (20, 30), 0.5, chosen) == official(found["masks"].numpy()[chosen])
    assert codes_of(whole_image(0), (20, 30), 0.5) == []


@pytest.mark.parametrize("size", [(40, 60), (10, 15), (20, 60)])
def test_masks_of_a_resized_image_take_the_nearest_pixels(size):
    found = whole_image()
    nearest = F.interpolate(found["masks"][None].float(), size, mode="nearest-exact")[0]
    assert codes_of(found, size, 0.5, scale=(2.0, 2.0)) == official(nearest.numpy())


def test_boxes_grow_with_the_image():
    generator = torch.Generator().manual_seed(0)
    found = {"boxes": torch.tensor([[2.0, 3, 12, 11]]), "scores": torch.ones(1),
             "labels": torch.zeros(1),
             "masks": torch.rand(1, 7, 7, generator=generator)}  # fmt: skip
    boxes = np.array([[4, 9, 24, 33]], np.float32)
    expected = paste(found["masks"].numpy(), boxes, (60, 60), 0.5)
    assert codes_of(found, (60, 60), 0.5, scale=(2.0, 3.0)) == expected
    rounded = found["masks"].bfloat16()  # autocast's
    expected = paste(rounded.float().numpy(), boxes, (60, 60), 0.5)
    assert codes_of(found | {"masks": rounded}, (60, 60), 0.5, scale=(2.0, 3.0)) == expected
