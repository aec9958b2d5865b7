"""What of instances travels: crops to train on, run-length codes to evaluate against."""

import cv2
import numpy as np
import pytest
import torch
from conftest import composed
from torch.utils.data import DataLoader
from torch.utils.data._utils.pin_memory import pin_memory
from torchvision.ops import roi_align

from segtrain.assembly import build_data
from segtrain.dataset.batches import collate_instances, collate_objects
from segtrain.dataset.coco import CocoInstances
from segtrain.dataset.instances import target_from_masks, training_objects, whole_masks
from segtrain.dataset.labels import COCO, SHAPES_INSTANCES
from segtrain.dataset.shape_instances import shape_instances
from segtrain.dataset.stream import TrainStream
from segtrain.dataset.transforms import InstancePreset
from segtrain.masks import decode


def blobs(count, size, seed=0):
    """(count, H, W) bool: smooth shapes anywhere, some of them cut by the border."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, *size), np.uint8)
    for mask in masks:
        centre = rng.integers(0, size[::-1]).tolist()
        axes = rng.integers(1, 1 + np.array(size[::-1]) // 2, endpoint=True).tolist()
        cv2.ellipse(mask, centre, axes, int(rng.integers(180)), 0, 300, 1, -1)
    return masks.astype(bool)


def target_of(masks, crowd=None):
    crowd = np.zeros(len(masks), bool) if crowd is None else np.array(crowd)
    return target_from_masks(masks, [0] * len(masks), crowd, 7)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(60, 40), (97, 64), (31, 22), (300, 20)])
def test_crops_hold_what_whole_masks_would_be_resized_to(size, flip):
    target = target_of(blobs(12, (40, 60)))
    objects = training_objects(target, size, flip)
    for mask, window, source in zip(
        whole_masks(objects, size[::-1]), objects["windows"].tolist(), target["masks"], strict=True
    ):
        resized = cv2.resize(source, size, interpolation=cv2.INTER_NEAREST_EXACT)
        expected = resized[:, ::-1] if flip else resized
        assert (mask == expected).all()
        left, top, width, height = cv2.boundingRect(np.ascontiguousarray(expected))
        assert window[0] <= max(0, left - 1)
        assert window[1] <= max(0, top - 1)
        assert window[2] >= min(size[0], left + width + 1)
        assert window[3] >= min(size[1], top + height + 1)
        assert window[2] - window[0] <= width + 4  # and hardly more


@pytest.mark.parametrize("seed", range(3))
def test_roi_align_of_crops_is_that_of_whole_masks(seed):
    """Also for boxes that reach beyond the window, and at the borders of the image."""
    size = (50, 70)
    objects = training_objects(target_of(blobs(8, (40, 60), seed)), size[::-1], flip=bool(seed % 2))
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 1, (200, 2, 2)).round(1) * size[::-1]  # many on the border
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    boxes = torch.cat([torch.from_numpy(boxes).float(), objects["boxes"]])
    start = 0
    for mask, window in zip(
        torch.from_numpy(whole_masks(objects, size)), objects["windows"], strict=True
    ):
        left, top, right, bottom = window.tolist()
        area = (bottom - top) * (right - left)
        crop = objects["crops"][start : start + area].view(bottom - top, right - left)
        start += area
        shift = torch.tensor([left, top, left, top])
        expected = roi_align(mask[None, None].float(), [boxes], 14)
        found = roi_align(crop[None, None].float(), [boxes - shift], 14)
        assert torch.allclose(found, expected, atol=1e-4)
        assert expected.any()
    assert start == len(objects["crops"])


def test_objects_that_vanish_keep_a_pixel():
    masks = np.zeros((3, 40, 40), bool)
    masks[0, 0, 0] = masks[1, 39, 39] = masks[2, 20, 7] = True
    target = target_of(masks)
    for size in ((4, 4), (3, 40), (1, 1)):
        objects = training_objects(target, size, flip=False)
        assert (objects["boxes"][:, 2:] > objects["boxes"][:, :2]).all()
        for mask, box in zip(whole_masks(objects, size[::-1]), objects["boxes"], strict=True):
            row, column = np.argwhere(mask)[0]
            assert mask.sum() == 1
            assert box[0] - 1 < column < box[2]
            assert box[1] - 1 < row < box[3]
    target["masks"][:] = 0  # a polygon narrower than a pixel
    assert (whole_masks(training_objects(target, (80, 80), True), (80, 80)).sum((1, 2)) == 1).all()


@pytest.mark.parametrize(
    ("masks", "crowd"),
    [
        (np.zeros((0, 30, 20), bool), []),
        (blobs(2, (30, 20)), [True, True]),
        (blobs(300, (30, 20)), [False] * 300),
        (blobs(3, (2, 500)), [False] * 3),
        (blobs(3, (500, 1)), [False] * 3),
    ],
    ids=["none", "crowds", "many", "wide", "high"],
)
def test_unusual_images_make_batches(masks, crowd):
    target, image = target_of(masks, crowd), np.zeros((*masks.shape[1:], 3), np.uint8)
    seen, objects = InstancePreset([16, 24], 40, 0.5)(image, target, (0,))
    batch = collate_objects([(seen, objects, "a"), (seen, objects, "b")])
    assert batch["name"] == ["a", "b"]
    assert batch["image"][0].shape == (3, *seen.shape[:2])
    kept = len(crowd) - sum(crowd)
    windows = batch["target"][1]["windows"]
    assert windows.shape == batch["target"][1]["boxes"].shape == (kept, 4)
    assert len(batch["target"][1]["labels"]) == kept
    areas = (windows[:, 2] - windows[:, 0]) * (windows[:, 3] - windows[:, 1])
    assert len(batch["target"][1]["crops"]) == areas.sum()
    (truth,) = collate_instances([(image, target, "a")])["target"]
    assert len(truth["codes"]) == len(truth["boxes"]) == len(truth["crowd"]) == len(crowd)
    assert truth["size"] == image.shape[:2]
    assert truth["image_id"] == 7
    assert (decode(truth["codes"], truth["size"]) == target["masks"]).all()


def test_truth_passes_pinning_and_the_transfer_untouched():
    data = build_data(composed("dataset=shapes_instances"))
    image, target = np.zeros((30, 20, 3), np.uint8), target_of(blobs(3, (30, 20)), [0, 1, 0])
    batch = collate_instances([(image, target, "a")])
    for got in (
        pin_memory(batch["target"]),
        data.transfer_batch_to_device(batch, torch.device("cpu"), 0)["target"],
    ):
        assert got[0]["codes"] == batch["target"][0]["codes"]
        assert got[0]["size"] == (30, 20)
        assert got[0]["crowd"].tolist() == [False, True, False]
    meta = data.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert meta["image"][0].is_meta
    assert meta["name"] == ["a"]
    objects = training_objects(target, (20, 30), flip=False)
    batch = collate_objects([(image, objects, "a")])
    meta = data.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert meta["image"][0].is_meta
    assert all(tensor.is_meta for tensor in meta["target"][0].values())


@pytest.mark.parametrize("workers", [0, 2])
def test_stream_sends_few_bytes(workers):
    source = shape_instances("train", SHAPES_INSTANCES, {"train": 4}, (64, 64), 0)
    stream = TrainStream(source, InstancePreset([64, 64], 64, 0.5), seed=1)
    batches = list(DataLoader(stream, 2, sampler=range(4), num_workers=workers,
                              collate_fn=collate_objects))  # fmt: skip
    assert [name for batch in batches for name in batch["name"]] == [stream[i][2] for i in range(4)]
    for position in range(4):
        image, objects, _ = stream[position]
        batch, place = batches[position // 2], position % 2
        assert (batch["image"][place].permute(1, 2, 0).numpy() == image).all()
        assert all(torch.equal(batch["target"][place][key], objects[key]) for key in objects)
        assert len(objects["crops"]) < 0.7 * len(objects["labels"]) * 64 * 64


def test_real_objects_are_pycocotools_masks_resized(real_data, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path))
    source = CocoInstances(str(real_data / "coco_instances"), "val2017", COCO, [])
    for index in range(0, len(source), 16):
        image, target = source.read(index)
        seen, objects = InstancePreset([480, 480], 800, 0.0)(image, target, (0,))
        single = target["masks"][~target["crowd"]]
        for mask, whole in zip(whole_masks(objects, seen.shape[:2]), single, strict=True):
            expected = cv2.resize(whole, seen.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
            assert (mask == expected).all() or not expected.any()
        (truth,) = collate_instances([(image, target, "a")])["target"]
        assert (decode(truth["codes"], truth["size"]) == target["masks"]).all()
