import logging
import time

import pytest

from segtrain.callback import progress
from segtrain.callback.progress import DataWait


def test_data_wait_counts_the_loader_only():
    wait = DataWait()
    with wait.profile("[_TrainingEpochLoop].train_dataloader_next"):
        time.sleep(0.02)
    before = wait.seconds
    with wait.profile("run_training_batch"):
        time.sleep(0.02)
    assert before >= 0.02
    assert wait.seconds == before


@pytest.mark.parametrize("delay", [0.0, 0.05])
def test_slow_data_is_warned_about(segtrain, monkeypatch, caplog, delay):
    from conftest import TINY

    from segtrain.dataset.shapes import Shapes

    read = Shapes.read

    def slow_read(self, index):
        time.sleep(delay)
        return read(self, index)

    monkeypatch.setattr(Shapes, "read", slow_read)
    monkeypatch.setattr(progress, "WAIT_LIMIT", 0.5)  # this machine may be busy, and wait by itself
    with caplog.at_level(logging.WARNING, logger="segtrain"):
        assert segtrain(*TINY, "trainer.max_steps=12", "trainer.val_every_n_steps=12")[0] == 0
    warned = [record for record in caplog.records if "waiting for data" in record.getMessage()]
    assert bool(warned) == (delay > 0)
    if warned:
        assert "dataset.num_workers=2" in warned[0].getMessage()
