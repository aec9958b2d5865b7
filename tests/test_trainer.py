"""What the trainer leaves to this package: signals, and what processes tell each other."""

import signal
from collections import Counter

import pytest
import pytorch_lightning as pl
import torch.distributed as dist
from conftest import TINY, composed

from segtrain.assembly import build_data, build_task
from segtrain.callback.agreement import Agreement
from segtrain.lifetime import PREEMPTION_SIGNALS
from segtrain.task.segmentation import Segmentation
from segtrain.trainer import build_trainer

COLLECTIVES = ("all_gather", "all_gather_object", "all_reduce", "barrier", "broadcast",
               "broadcast_object_list", "monitored_barrier", "reduce")  # fmt: skip
STEPS = 6


class CollectivesOfASteadyStep(pl.Callback):
    """Counts calls from the start of step 3 to that of step 4."""

    def __init__(self, monkeypatch) -> None:
        self.counts: Counter[str] = Counter()
        self.step = 0
        for name in COLLECTIVES:
            monkeypatch.setattr(dist, name, self._counting(name, getattr(dist, name)))

    def _counting(self, name, collective):
        def call(*arguments, **settings):
            self.counts.update([name] if self.step == 3 else [])
            return collective(*arguments, **settings)

        return call

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.step = trainer.global_step


@pytest.fixture
def two_processes(tmp_path, monkeypatch):
    """A group of this process alone, which the training takes for two."""
    dist.init_process_group("gloo", f"file://{tmp_path}/group", world_size=1, rank=0)
    monkeypatch.setattr(pl.Trainer, "world_size", 2)
    monkeypatch.setattr(Agreement, "is_shared", True)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("two_processes")
def test_a_step_of_several_processes_asks_for_signals_on_the_host_alone(tmp_path, monkeypatch):
    """And, on a CPU, whether all losses are finite.

    Beside gradients, which DDP sums by itself; loss weights are summed among more than one.
    """
    config = composed(*TINY, f"trainer.max_steps={STEPS}", f"trainer.val_every_n_steps={STEPS}")
    data = build_data(config)
    task = build_task(config, data.labels)
    trainer, _ = build_trainer(config, data, tmp_path, "miou")
    counted = CollectivesOfASteadyStep(monkeypatch)
    trainer.callbacks.insert(0, counted)
    trainer.fit(task, data)
    assert trainer.global_step == STEPS
    assert counted.counts == {"all_reduce": 2}


@pytest.fixture
def handlers(monkeypatch):
    """Of SIGTERM and SIGUSR1, by the kind of step in which they were found."""
    found = {}

    def noting(name):
        step = getattr(Segmentation, name)

        def note_and_step(self, batch, index):
            found[name] = of_signals()
            return step(self, batch, index)

        return note_and_step

    for name in ("training_step", "validation_step", "test_step"):
        monkeypatch.setattr(Segmentation, name, noting(name))
    return found


def of_signals() -> list:
    return [signal.getsignal(number) for number in PREEMPTION_SIGNALS]


def test_signals_are_handled_while_a_training_steps_and_left_alone_else(segtrain, handlers):
    before = of_signals()
    assert segtrain(*TINY)[0] == 0
    assert handlers["training_step"] == handlers["validation_step"]
    for handler, old in zip(handlers["training_step"], before, strict=True):
        assert handler != old
    assert handlers["test_step"] == before
    assert of_signals() == before


def test_a_benchmark_leaves_signals_alone(segtrain, handlers):
    before = of_signals()
    tiny = [override for override in TINY if not override.startswith(("trainer.", "report"))]
    settings = ["measure=training", "measure.steps=1", "measure.warm_up=1"]
    code, _, err = segtrain("benchmark", *settings, *tiny, "trainer.accelerator=cpu")
    assert code == 0, err
    assert handlers["training_step"] == before
