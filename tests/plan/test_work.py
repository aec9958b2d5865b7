"""Operations and saved bytes, against those of networks that are really run."""

import json

import pytest
import torch
from conftest import composed, small_network
from torch.utils.flop_counter import FlopCounterMode

from segtrain.assembly import build_task, make
from segtrain.plan import work as module
from segtrain.plan.speed import picture_size, random_batch
from segtrain.plan.work import FILE, WHOLE_STEP, count_work, storage, work


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))


def small(name, *overrides):
    return composed(f"experiment={name}", *small_network(f"experiment={name}"), *overrides)


def really_run(config, count):
    """Operations of forward, loss and backward, and the bytes that autograd keeps."""
    labels = make(config["dataset"]["labels"])
    task = build_task(config, labels).train()
    batch = random_batch(config, labels, (count, *picture_size(config)), torch.device("cpu"))
    own = {storage(p) for p in task.parameters()}
    kept = {}

    def keep(tensor):
        if storage(tensor) not in own:
            kept[storage(tensor)] = tensor
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            terms = task.evaluation.terms(task.model, task.loss, batch)
        sum(terms.values()).backward()
    saved = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    return counter.get_total_flops() / count, saved / count


@pytest.mark.parametrize(
    "name", ["deeplabv3_shapes", "pspnet_shapes", "encnet_shapes", "deconvnet_shapes"]
)
def test_as_a_real_step(name):
    config = small(name, "trainer.precision=32-true")
    found = count_work(config)
    operations, saved = really_run(config, 2)
    # The first convolution has no gradient of its input.
    assert operations < found.operations < 1.05 * operations
    assert found.saved == pytest.approx(saved, rel=0.25)  # the loss keeps more


def test_half_precision_keeps_half_the_activations_and_copies_of_weights():
    single, half = (count_work(small("deeplabv3_shapes", f"trainer.precision={precision}"))
                    for precision in ("32-true", "auto"))  # fmt: skip
    assert half.operations == single.operations
    assert 0.4 < half.saved / single.saved < 0.7
    assert half.kept > single.kept


def test_batch_norms_that_learn():
    assert len(count_work(small("deeplabv3_shapes")).norms) > 3
    assert count_work(small("deeplabv3_shapes", "batch_norm.frozen=true")).norms == []


def test_heads_of_a_detector_are_those_of_all_regions():
    few, many = (
        count_work(small("mask_rcnn_shapes", f"architecture.samples={samples}"))
        for samples in (64, 128)
    )
    head = many.operations - few.operations
    assert head > 0
    assert count_work(
        small("mask_rcnn_shapes", "architecture.samples=192")
    ).operations == pytest.approx(many.operations + head)
    # By hand: 64 more regions through the box head, 16 more through that of masks.
    config = small("mask_rcnn_shapes")["architecture"]
    channels, width = config["channels"], config["box_width"]
    classes = 1 + make(small("mask_rcnn_shapes")["dataset"]["labels"]).num_classes
    box = channels * config["box_size"] ** 2 * width + width * width + width * 5 * classes
    cells = config["mask_size"] ** 2
    mask = (
        4 * cells * 9 * channels**2
        + 4 * cells * channels * channels
        + 4 * cells * channels * classes
    )
    assert head == pytest.approx(WHOLE_STEP * 2 * (64 * box + 16 * mask))


def test_other_detectors():
    assert (
        count_work(small("panet_shapes")).operations
        > count_work(small("mask_rcnn_shapes")).operations
    )
    assert count_work(small("fpn_shapes")).operations > 0


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("dpt_shapes", "mask2former_shapes")]


@pytest.mark.parametrize("name", ["eomt_shapes", *SLOW])
def test_networks_that_read_values_while_they_are_built(name):
    """As timm's transformers read the rates of their stochastic depth."""
    found = count_work(small(name, "trainer.precision=32-true"))
    operations, _ = really_run(small(name, "trainer.precision=32-true"), 2)
    assert 0.5 * operations < found.operations < 1.05 * operations  # the loss's too


def test_counted_once(tmp_path, monkeypatch):
    config = small("deeplabv3_shapes")
    found = work(config)
    (stored,) = json.loads((tmp_path / "cache" / FILE).read_text()).values()
    assert stored["operations"] == found.operations
    monkeypatch.setattr(module, "count_work", None)
    assert work(config) == found
    assert work(config | {"batch_size": 1}) == found
