"""Values that follow from the data: every rule over small, large, rare and odd sets."""

import itertools

import numpy as np
import pytest

from segtrain.automatic.facts import Facts
from segtrain.automatic.rules import (
    STRIDE,
    batch_size,
    class_weights,
    crop_size,
    instance_choices,
    mask_classification,
    semantic_choices,
    training_size,
    workers,
)

SIZES = [(1, 400), (8, 8), (33, 47), (360, 480), (480, 360), (1024, 2048), (3000, 4000)]
IMAGES = [1, 2, 5, 30, 367, 10_000, 1_000_000]


def facts(images=30, size=(360, 480), counts=(50, 50), gpu=False, cores=2, instances=False):
    return Facts(images, size, np.array(counts), tuple(f"c{n}" for n in range(len(counts))),
                 instances, gpu, cores, 10**10)  # fmt: skip


@pytest.mark.parametrize(("size", "images", "gpu"), itertools.product(SIZES, IMAGES, [0, 1]))
def test_any_set_has_values_that_a_training_takes(size, images, gpu):
    seen = facts(images, size, gpu=bool(gpu))
    batch = batch_size(seen, 64)
    values = {c.key: c.value for c in semantic_choices(seen, batch, pretrained=True)}
    crop = values["dataset.transform.crop_size"]
    assert all(side % STRIDE == 0 and side >= STRIDE for side in crop)
    assert crop[0] * crop[1] <= max(1.2 * (512 if gpu else 288) ** 2, 20 * STRIDE**2)
    low, high = values["dataset.transform.scale_range"]
    assert 0 < low < high <= 1.5
    assert 1 <= values["trainer.val_every_n_steps"] <= values["trainer.max_steps"]
    assert values["optimizer.warmup_steps"] < values["trainer.max_steps"]
    assert values["trainer.max_steps"] * batch >= min(images, 800)
    assert 0.9 <= values["callback.ema.decay"] < 1
    assert values["batch_size"] == batch >= 1
    assert batch & (batch - 1) == 0
    assert all(c.reason for c in semantic_choices(seen, batch, pretrained=False))


@pytest.mark.parametrize("size", SIZES)
def test_crops_have_the_images_shape_and_are_no_larger(size):
    seen = facts(size=size)
    shown, scale = training_size(seen)
    crop = crop_size(seen, shown)
    for side, limit in zip(crop, shown, strict=True):
        assert side <= max(STRIDE, limit)
    assert (scale < 1) == (min(size) > 1.5 * 512)


def test_large_images_are_evaluated_as_they_are_trained_on():
    values = {c.key: c.value for c in semantic_choices(facts(size=(3000, 4000)), 8, True)}
    assert values["inference.size"] == {"short": 512}
    low, high = values["dataset.transform.scale_range"]
    assert low < 512 / 3000 < high
    small = {c.key for c in semantic_choices(facts(), 8, True)}
    assert "inference.size" not in small


def test_classes_weigh_where_one_is_rare():
    assert class_weights(facts(counts=(50, 50))) is None
    assert class_weights(facts(counts=(0, 50, 50))) is None  # one that does not occur
    rare = class_weights(facts(counts=(60, 39.9, 0.1)))
    assert rare.value == "sqrt_median_frequency"
    assert "c2 has 0.1 %" in rare.reason


@pytest.mark.parametrize(("images", "batch"), [(1, 2), (3, 2), (5, 2), (9, 4), (30, 8), (10**6, 8)])
def test_few_images_make_small_batches(images, batch):
    assert batch_size(facts(images), 64) == batch


@pytest.mark.parametrize("fitting", [1, 2, 3, 5, 64])
def test_no_batch_is_larger_than_fits(fitting):
    assert batch_size(facts(10_000, gpu=True), fitting) <= fitting


def test_loader_workers_leave_few_cores_to_the_computation():
    assert workers(facts(cores=2)).value == 0
    assert workers(facts(cores=16)) is None
    assert workers(facts(cores=2, gpu=True)) is None


@pytest.mark.parametrize(("size", "gpu"), itertools.product(SIZES, [0, 1]))
def test_detectors_see_images_whole(size, gpu):
    values = {c.key: c.value for c in instance_choices(
        facts(size=size, gpu=bool(gpu), instances=True), 4, True)}  # fmt: skip
    low, high = values["dataset.transform.short_side"]
    assert 0 < low <= high
    longest = values["dataset.transform.long_side"]
    assert longest >= high * max(size) / min(size)
    assert values["inference.short_sides"] == [high]
    assert values["inference.long_side"] == longest


@pytest.mark.parametrize(("pretrained", "backbone"), [(True, 1e-5), (False, 1e-4)])
def test_networks_of_queries_learn_at_their_authors_rates(pretrained, backbone):
    values = {c.key: c.value for c in mask_classification(pretrained)}
    assert values["optimizer.lr"] == backbone
    assert values["optimizer.lr"] * values["optimizer.head_multiplier"] == pytest.approx(1e-4)
    assert values["trainer.gradient_clip_val"] == 0.01
