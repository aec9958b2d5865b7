import copy

import pytest
import torch
from torch import nn

from segtrain.callback.ema import EMA, share_of_old, update


class Module(nn.Module):
    """As much of a LightningModule as the callback asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_decay_rises_to_its_limit():
    assert share_of_old(0, 0.9) == 0  # random weights are forgotten at once
    for updates in (1, 5, 50, 1000):
        assert share_of_old(updates, 0.9) == min(0.9, (1 + updates) / (10 + updates))


def test_averages_move_and_counters_are_copied():
    old = [torch.tensor([1.0]), torch.tensor(3)]
    update((old, [torch.tensor([2.0]), torch.tensor(8)]), 0.75)
    assert old[0].item() == pytest.approx(1.25)
    assert old[1].item() == 8


def test_equals_a_slow_average():
    torch.manual_seed(0)
    module, callback = Module(), EMA(decay=0.6)
    callback.on_fit_start(None, module)
    expected = {}
    for step in range(6):
        for parameter in module.parameters():
            parameter.data.normal_()
        module.model[1].running_mean.normal_()
        share = min(0.6, (1 + step) / (10 + step)) if step else 0.0
        for name, weight in module.model.state_dict().items():
            old = expected.get(name, weight).double()
            expected[name] = share * old + (1 - share) * weight.double()
        callback.on_train_batch_end(None, module, None, None, step)
    for name, average in callback.averages.items():
        torch.testing.assert_close(average.double(), expected[name], rtol=1e-6, atol=1e-7)


def test_validation_sees_the_averages_and_training_does_not():
    torch.manual_seed(0)
    module, callback = Module(), EMA(decay=0.9)
    callback.on_fit_start(None, module)
    first = copy.deepcopy(module.model.state_dict())
    for parameter in module.parameters():
        parameter.data += 1
    second = copy.deepcopy(module.model.state_dict())
    callback.on_validation_epoch_start(None, module)
    assert all(torch.equal(a, b) for a, b in zip(first.values(), module.model.state_dict().values(),
                                                 strict=True))  # fmt: skip
    callback.on_validation_epoch_end(None, module)
    assert all(torch.equal(a, b) for a, b in zip(second.values(),
                                                 module.model.state_dict().values(),
                                                 strict=True))  # fmt: skip


def test_averages_lie_where_the_weights_are_and_ask_the_device_for_nothing():
    """Lightning moves the module between `setup` and `on_fit_start`; `meta` knows no values."""
    module, callback = Module(), EMA(decay=0.9)
    callback.setup(None, module, "fit")
    module.to("meta")
    callback.on_fit_start(None, module)
    for step in range(2):
        callback.on_train_batch_end(None, module, None, None, step)
    callback.on_validation_epoch_start(None, module)
    callback.on_validation_epoch_end(None, module)
    assert {average.device.type for average in callback.averages.values()} == {"meta"}
