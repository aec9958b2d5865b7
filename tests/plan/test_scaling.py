"""The model of a training on several GPUs, at its limits and by hand."""

import dataclasses
import math

import pytest

from segtrain.plan.scaling import BUCKET, Links, Scaled, Training, usable
from segtrain.plan.work import Work

WORK = Work(operations=1e12, saved=1e9, kept=1e8, norms=[64, 256])
TRAINING = Training(batch_size=16, accumulated=1, steps=1000, parameters=50_000_000, states=1,
                    work=WORK, seconds=0.02)  # fmt: skip
LINKS = Links(bandwidth=10e9, latency=5e-6)
FREE = Links(bandwidth=math.inf, latency=0.0)


def on(devices, links=LINKS, **changes):
    return Scaled(dataclasses.replace(TRAINING, **changes), links, devices)


def test_one_device_talks_to_nobody():
    one = on(1)
    assert one.step == one.computing == 16 * 0.02
    assert one.exposed == one.synchronised == one.traffic == 0
    assert one.efficiency == 1
    assert one.memory == 4 * 3 * 50e6 + 1e8 + 16 * 1e9  # weights, gradients, momentum


@pytest.mark.parametrize("devices", [1, 2, 4, 8, 16])
def test_free_links_share_the_time(devices):
    assert on(devices, FREE).step == pytest.approx(on(1).step / devices)


def test_more_devices_than_images_change_nothing():
    few, many = on(16), on(64)
    assert many.devices == 16
    assert (many.step, many.memory, many.images) == (few.step, few.memory, 1)


@pytest.mark.parametrize(
    ("images", "given", "used"), [(10, 8, 5), (10, 64, 10), (16, 6, 4), (1, 8, 1)]
)
def test_the_batch_is_shared_out_evenly(images, given, used):
    assert usable(images, given) == used
    assert on(given, batch_size=images).devices == used


def test_by_hand():
    eight = on(8)
    computing = 16 * 0.02 / 8  # 40 ms
    # 200 MB in 8 buckets: 7/4 of them at 10 GB/s, and 14 messages for each bucket.
    gradients = 7 / 4 * 200e6 / 10e9 + 8 * 14 * 5e-6
    assert LINKS.all_reduce(200e6, 8) == pytest.approx(gradients)
    assert gradients > 2 / 3 * computing
    # 8 bytes a channel, from 7 others and in a ring of 14 messages.
    norms = sum(7 * (8 * c / 10e9 + 5e-6) + 7 / 4 * 8 * c / 10e9 + 14 * 5e-6 for c in (64, 256))
    assert eight.exposed == pytest.approx(gradients - 2 / 3 * computing)
    assert eight.synchronised == pytest.approx(norms)
    assert eight.step == pytest.approx(computing + gradients - 2 / 3 * computing + norms)
    assert eight.seconds == pytest.approx(1000 * eight.step)
    assert eight.efficiency == pytest.approx(computing / eight.step)
    assert eight.traffic == pytest.approx(7 / 4 * 200e6 / eight.step)
    assert eight.images_per_second == pytest.approx(16 / eight.step)
    assert eight.memory == 4 * 4 * 50e6 + 1e8 + 2 * 1e9  # buckets as well


def test_only_the_last_bucket_waits_behind_a_long_backward_pass():
    slow = on(8, seconds=1.0)
    assert slow.exposed == pytest.approx(7 / 4 * BUCKET / 10e9 + 14 * 5e-6)
    assert slow.efficiency > 0.99


def test_accumulated_passes():
    plain, parts = on(2, seconds=0.01), on(2, seconds=0.01, accumulated=4)
    assert (plain.images, parts.images) == (8, 2)
    assert parts.computing == plain.computing
    assert parts.synchronised == pytest.approx(4 * plain.synchronised)
    assert parts.memory < plain.memory
    assert parts.exposed > plain.exposed == LINKS.all_reduce(BUCKET, 2)  # beside the last pass


def test_frozen_batch_norms_do_not_wait():
    assert on(8, work=WORK._replace(norms=[])).synchronised == 0


def test_unknown_steps():
    assert on(8, steps=None).seconds is None
