"""Photometric jitter, in the loader and on the device."""

import random

import cv2
import numpy as np
import torch
from conftest import TINY, composed
from torch import Tensor

from segtrain.assembly import build_data
from segtrain.dataset.batches import collate_crops
from segtrain.dataset.colours import PhotometricJitter, recolour
from segtrain.dataset.transforms import train_semantic

STRENGTHS = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}


def jittered(image: np.ndarray, seed: int, *strengths: float) -> np.ndarray:
    return cv2.transform(image, PhotometricJitter(*strengths).draw(random.Random(seed)))


def test_strengths():
    image = np.random.default_rng(0).integers(60, 190, (32, 32, 3), dtype=np.uint8)
    same = jittered(image, 0, 0.0, 0.0, 0.0, 0.0)
    assert np.abs(same.astype(int) - image).max() <= 1
    grey = np.repeat(image[..., :1], 3, axis=2)
    turned = jittered(grey, 1, 0.0, 0.0, 0.5, 0.5)
    assert np.abs(turned.astype(int) - grey).max() <= 1  # grey has no hue and no saturation
    factors = [jittered(image, s, 0.3, 0.0, 0.0, 0.0).mean() / image.mean() for s in range(50)]
    assert 0.69 <= min(factors) < 0.8
    assert 1.2 < max(factors) <= 1.31


def samples(preset, count: int = 6) -> list:
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (60, 70, 3), dtype=np.uint8)
    mask = rng.integers(0, 4, (60, 70), dtype=np.uint8)
    return [(*preset(image, mask, (1, n)), f"{n}") for n in range(count)]


def test_left_to_the_device_images_are_the_loaders():
    preset = train_semantic((40, 48), (0.5, 2.0), 10.0, 0.5, 0.5, **STRENGTHS)
    expected = collate_crops(samples(preset))
    batch = collate_crops(samples(preset.leaving_colours()))
    assert torch.equal(batch["mask"], expected["mask"])
    assert (batch["image"] != expected["image"]).any()
    found = recolour(batch["image"], batch["colours"])
    assert found.dtype == torch.uint8
    assert found.is_contiguous(memory_format=torch.channels_last)
    difference = (found.int() - expected["image"].int()).abs()
    assert difference.max() <= 1  # OpenCV computes with integers of its own
    assert (difference > 0).float().mean() < 0.05
    colours, pixels = batch["colours"].double(), batch["image"].double()
    exact = torch.einsum("nij,njhw->nihw", colours[:, :, :3], pixels)
    exact = exact + colours[:, :, 3, None, None]
    assert torch.equal(found.double(), exact.round().clamp(0, 255))


def test_nothing_is_left_where_there_is_no_jitter():
    preset = train_semantic((40, 48), (0.5, 2.0), 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert "colours" not in collate_crops(samples(preset.leaving_colours()))


class Trainer:
    """As much of a trainer as the loader asks for."""

    global_rank = global_step = 0
    world_size = 1
    max_steps = 2

    def __init__(self, device: str) -> None:
        self.strategy = self
        self.root_device = torch.device(device)


def first_batch(device: str) -> Tensor:
    """The first batch as the network gets it, with a trainer whose device is that."""
    data = build_data(composed(*TINY, "dataset.num_workers=0", "dataset.transform.brightness=0.4"))
    data.trainer = Trainer(device)
    batch = next(iter(data.train_dataloader()))
    assert ("colours" in batch) == (device == "cuda")
    batch = data.on_after_batch_transfer(batch, 0)
    assert set(batch) == {"image", "mask", "name"}
    return batch["image"]


def test_a_gpu_gets_the_colours_and_trains_on_the_same_images():
    difference = first_batch("cpu").int() - first_batch("cuda").int()
    assert difference.abs().max() <= 1
