import pytest
import torch

from segtrain.callback.ema import EMA


def test_decay_rises_to_its_limit():
    average = EMA(decay=0.9)._kwargs["avg_fn"]
    old, new = torch.tensor([1.0]), torch.tensor([2.0])
    for updates in (1, 5, 50, 1000):
        decay = min(0.9, (1 + updates) / (10 + updates))
        assert average(old, new, torch.tensor(updates)).item() == pytest.approx(
            decay * 1 + (1 - decay) * 2
        )


def test_counters_are_copied():
    average = EMA(decay=0.9)._kwargs["avg_fn"]
    assert average(torch.tensor(3), torch.tensor(8), torch.tensor(1)).item() == 8
