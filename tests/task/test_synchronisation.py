"""A training step never makes the host wait for the device: it asks for no value and no count."""

import pytest
import torch
from conftest import TINY, architectures, composed, small_network
from faults import FORBIDS_WAITING
from torch.profiler import ProfilerActivity, profile

from segtrain.assembly import build_model, make
from segtrain.configuration.folder import options

CLASSES = 5
# What an operation of a device must tell the host: a number, or how many elements there are.
WAITING = {
    "aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::equal",
    "aten::masked_select", "aten::_unique", "aten::_unique2", "aten::unique_consecutive",
    "aten::bincount", "aten::repeat_interleave",
}  # fmt: skip


def operations(*overrides: str) -> set[str]:
    """Those of forward pass, loss and backward pass of a small network."""
    config = composed(*overrides, *small_network(*overrides))
    model = build_model(config, CLASSES).train()
    loss = make(config["loss"], ignore_index=255)
    image = torch.randint(0, 256, (2, 3, 48, 64), dtype=torch.uint8)
    target = torch.randint(0, CLASSES, (2, 48, 64), dtype=torch.uint8)
    target[:, :5] = 255
    with profile(activities=[ProfilerActivity.CPU]) as record:
        sum(loss(model(image), target).values()).backward()
    return {event.name for event in record.events()}


@pytest.mark.parametrize("name", architectures("semantic"))
def test_networks(name):
    found = operations(f"architecture={name}")
    assert "aten::convolution_backward" in found
    assert not found & WAITING


@pytest.mark.parametrize("name", ["cross_entropy", "ohem", "dice"])
@pytest.mark.parametrize(
    "override", ["seed=1", "loss.form=strips", "loss.pixel.class_weights=[1,2,1,3,1]"]
)
def test_losses(name, override):
    assert name in options("loss")
    assert not operations("architecture=deeplabv3", f"loss={name}", override) & WAITING


def test_the_operations_are_what_waiting_takes():
    """So that another version of PyTorch cannot rename them unnoticed."""
    values = torch.tensor([1.0, 0.0])
    with profile(activities=[ProfilerActivity.CPU]) as record:
        values[values > 0].sum().item()
        values.unique()
    found = {event.name for event in record.events()}
    assert {"aten::item", "aten::nonzero", "aten::_unique2"} <= found


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CPU never waits for itself")
def test_whole_steps_on_a_gpu(segtrain):
    settings = [o for o in TINY if "trainer.accelerator" not in o]
    code, _, err = segtrain(*settings, "trainer.max_steps=8", FORBIDS_WAITING)
    assert code == 0, err
