"""Step times on random input, and what is drawn from them."""

import json

import pytest
import torch
from conftest import composed, small_network

from segtrain.assembly import build_task, make
from segtrain.dataset.labels import SHAPES_PANOPTIC
from segtrain.plan.speed import (
    FILE,
    extrapolated,
    measure_speed,
    picture_size,
    random_batch,
    stored_speed,
)
from segtrain.segments import unpack


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("points", "seconds"),
    [
        ([(100, 2.0)], 20.0),  # in proportion, from one
        ([(100, 2.0), (400, 5.0)], 11.0),  # on the line through the last two
        ([(10, 9.0), (100, 2.0), (400, 5.0)], 11.0),
        ([(100, 3.0), (400, 2.0)], 2.0),  # never less with more pixels
        ([(500, 4.0), (1000, 7.0)], 7.0),  # measured
    ],
)
def test_line_over_pixels(points, seconds):
    assert extrapolated(points, 1000) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "name", ["deeplabv3_shapes", "deconvnet_shapes", "mask_rcnn_shapes", "fpn_shapes"]
)
def test_a_step_is_measured_and_kept(name, tmp_path):
    config = composed(f"experiment={name}", *small_network(f"experiment={name}"), "batch_size=2",
                      "trainer.accelerator=cpu")  # fmt: skip
    assert stored_speed(config) is None
    entry = measure_speed(config, name, seconds=60)
    height, width = picture_size(config)
    assert entry["measured"] == entry["input"] == f"2 x {height}x{width}"
    assert 0 < entry["seconds"] < 60
    assert stored_speed(config) == entry
    assert stored_speed(config | {"batch_size": 4}) is None
    (kept,) = json.loads((tmp_path / "cache" / FILE).read_text()).values()
    assert kept["experiment"] == name
    assert kept["device"]


def test_no_time_is_the_smallest_steps():
    config = composed("experiment=deeplabv3_shapes", "batch_size=8", "trainer.accelerator=cpu",
                      "dataset.transform.crop_size=[512,512]")  # fmt: skip
    entry = measure_speed(config, "x", seconds=0.0)
    assert entry["measured"] == "2 x 129x129"


KINDS = {
    "semantic": ["architecture=parsenet", "dataset=shapes"],
    "multilabel": ["experiment=multilabel_shapes"],
    "panoptic": ["architecture=eomt", "dataset=shapes_panoptic", "inference=panoptic"],
    "masks of classes": ["architecture=eomt", "dataset=shapes"],
    "masks of instances": ["architecture=eomt", "dataset=shapes_instances", "inference=masks"],
    "instances": ["experiment=mask_rcnn_shapes"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_random_batches_have_labels_of_the_data_set_s_kind(kind):
    chosen = KINDS[kind]
    config = composed(*chosen, *small_network(*chosen))
    labels = make(config["dataset"]["labels"])
    task = build_task(config, labels).train()
    batch = random_batch(config, labels, (2, 64, 96), torch.device("cpu"))
    terms = task.evaluation.terms(task.model, task.loss, batch)
    assert all(torch.isfinite(term) for term in terms.values())
    sum(terms.values()).backward()


def test_random_panoptic_labels_are_a_few_segments():
    config = composed("dataset=shapes_panoptic")
    batch = random_batch(config, SHAPES_PANOPTIC, (2, 64, 96), torch.device("cpu"))
    for mask in batch["mask"]:
        segments = unpack(mask)
        assert 2 <= len(segments.labels) <= 8
        assert not segments.crowd.any()
        assert segments.masks.any(0).all()
