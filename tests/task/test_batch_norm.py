"""Batch norm settings of a recipe, as training sees them."""

import pytest
import torch
from conftest import TINY, composed, only_run
from torch import nn

from segtrain.assembly import build_data, build_model, build_task


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def test_decay_of_the_running_statistics():
    config = composed(*TINY, "batch_norm.decay=0.9997")
    momenta = [norm.momentum for norm in norms(build_model(config, 3))]
    assert momenta == pytest.approx([0.0003] * len(momenta))
    assert {norm.momentum for norm in norms(build_model(composed(*TINY), 3))} == {0.1}


def test_frozen_batch_norm_stays_in_evaluation_and_unlearned():
    config = composed(*TINY, "batch_norm.frozen=true")
    task = build_task(config, build_data(config).labels)
    for mode in (True, False, True):
        task.train(mode)
        assert task.model.training is mode
        assert not any(norm.training for norm in norms(task.model))
    assert not any(p.requires_grad for norm in norms(task.model) for p in norm.parameters())


def test_training_leaves_a_frozen_batch_norm_as_it_was(segtrain):
    code, _, err = segtrain(*TINY, "batch_norm.frozen=true", "~callback.ema")
    assert code == 0, err
    state = torch.load(only_run() / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    model = build_model(composed(*TINY), 8)
    names = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    for name in names:
        fresh = model.get_submodule(name)
        for part in ("running_mean", "running_var", "bias"):
            assert torch.equal(state[f"model.{name}.{part}"], getattr(fresh, part)), name
