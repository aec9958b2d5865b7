import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from segtrain.dataset.batches import collate_crops, collate_images
from segtrain.dataset.shapes import Shapes
from segtrain.dataset.stream import EvalImages, StepSampler, TrainStream, permutation
from segtrain.dataset.transforms import train_semantic


def stream(seed=0):
    source = Shapes("train", num_images=10, size=(40, 40), seed=0)
    transform = train_semantic((32, 32), (0.5, 2.0), 0.0, 0.5, 0.0, 0.2, 0.2, 0.2, 0.1)
    return TrainStream(source, transform, seed)


def batches(sampler, workers=0):
    return list(
        DataLoader(stream(), batch_sampler=sampler, num_workers=workers, collate_fn=collate_crops)
    )


def test_every_epoch_holds_every_image_once():
    names = [stream()[position][2] for position in range(20)]
    assert len(set(names[:10])) == len(set(names[10:])) == 10
    assert names[:10] != names[10:]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_resuming_gives_the_same_samples_whatever_the_workers(workers):
    whole = batches(StepSampler(6, 4, 0, 1, first_batch=0))
    resumed = batches(StepSampler(6, 4, 0, 1, first_batch=2), workers)
    assert len(resumed) == 4
    for expected, got in zip(whole[2:], resumed, strict=True):
        assert expected["name"] == got["name"]
        assert torch.equal(expected["image"], got["image"])
        assert torch.equal(expected["mask"], got["mask"])


def test_processes_share_each_batch():
    whole = batches(StepSampler(3, 6, 0, 1, 0))
    parts = [batches(StepSampler(3, 6, rank, 3, 0)) for rank in range(3)]
    for step in range(3):
        together = [name for part in parts for name in part[step]["name"]]
        assert sorted(together) == sorted(whole[step]["name"])
        assert [len(part[step]["name"]) for part in parts] == [2, 2, 2]


def test_samples_differ_by_position_and_seed():
    first, again = stream()[3], stream()[3]
    assert np.array_equal(first[0], again[0])
    assert not np.array_equal(stream(seed=0)[0][0], stream(seed=1)[0][0])
    assert not np.array_equal(permutation(10, 0, 0), permutation(10, 0, 1))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_counts_every_image_once(world_size):
    source = Shapes("val", num_images=7, size=(32, 32), seed=0)
    seen = []
    for rank in range(world_size):
        share = EvalImages(source, rank, world_size)
        seen += [share[index][2] for index in range(len(share))]
    assert sorted(seen) == [source.name(index) for index in range(7)]


def test_batches_need_no_copy_to_be_channels_last():
    batch = batches(StepSampler(1, 4, 0, 1, 0))[0]
    assert batch["image"].shape == (4, 3, 32, 32)
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert batch["image"].dtype == batch["mask"].dtype == torch.uint8


def test_evaluation_batches_keep_sizes():
    sizes = [(20, 30), (31, 7)]
    samples = [(np.zeros((*s, 3), np.uint8), np.zeros(s, np.uint8), "x") for s in sizes]
    batch = collate_images(samples)
    assert [tuple(image.shape) for image in batch["image"]] == [(3, 20, 30), (3, 31, 7)]
