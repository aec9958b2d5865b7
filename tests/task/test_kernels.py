"""cuDNN tries kernels where sizes stay the same, and only there."""

import pytest
import torch
from conftest import TINY

from segtrain.task.segmentation import Segmentation


@pytest.mark.parametrize("deterministic", [False, True])
def test_for_crops_only(segtrain, monkeypatch, deterministic):
    found = {}

    def record(name):
        step = getattr(Segmentation, name)

        def recorded(self, batch, batch_idx):
            found.setdefault(name, set()).add(torch.backends.cudnn.benchmark)
            return step(self, batch, batch_idx)

        monkeypatch.setattr(Segmentation, name, recorded)

    for name in ("training_step", "validation_step", "test_step"):
        record(name)
    settings = [f"trainer.deterministic={deterministic}", "trainer.val_every_n_steps=2"]
    assert segtrain(*TINY, *settings)[0] == 0
    assert found == {
        "training_step": {not deterministic}, "validation_step": {False}, "test_step": {False},
    }  # fmt: skip
