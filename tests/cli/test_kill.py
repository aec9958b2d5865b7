"""A run that ends at any event, and is resumed, is the run that nothing happened to."""

import functools
import random
import signal
import time
from datetime import datetime
from pathlib import Path

import pytest
import torch
from conftest import TINY, results_of
from faults import Crash
from processes import children, is_alive, start
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_train import TESTS, assert_same_training, process

RUN = [
    *TINY,
    "trainer.max_steps=10",
    "trainer.val_every_n_steps=4",  # at 4, 8 and, as it is the last, at 10
    "trainer.checkpoint_every_n_steps=3",
    "dataset.eval_batch_size=2",
    "optimizer.lr=0.02",
]
TRUST = "trust_code=true"  # the run names a callback of the tests
# Which of the events: 10 steps; saves at 3, 4, 4 (best), 4, 6, 8, ... ; 3 validations of 4 batches.
EVENTS = [
    ("step", 4), ("step", 5), ("step", 10),
    ("save", 1), ("save", 2), ("save", 3), ("save", 4),
    ("val_start", 1), ("val_start", 2), ("val_start", 3),
    ("val_middle", 2), ("val_middle", 6), ("val_middle", 9),
    ("val_end", 1), ("val_end", 2), ("val_end", 3),
    ("test", 1),
]  # fmt: skip
SAMPLE = [("step", 10), ("save", 4), ("val_middle", 2), ("val_end", 2), ("val_middle", 9)]


def strike_at(event: str, count: int, number: int) -> list[str]:
    fault = f"_target_: faults.StrikeAt, event: {event}, count: {count}, number: {int(number)}"
    return [f"+callback.fault={{{fault}}}"]


def crash(settings: list[str]) -> None:
    """A run in `outputs/run` that does not survive; not by the command line, which takes errors."""
    from segtrain.cli.app import run

    with pytest.raises(Crash):
        run("train", [*settings, "hydra.run.dir=outputs/run"])


def validations(run: Path) -> dict[int, float]:
    """The mIoU of every validation, by the step that it is logged at."""
    found = {}
    for file in sorted((run / "tensorboard").rglob("events*")):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        if "val/miou" in events.Tags()["scalars"]:
            for event in events.Scalars("val/miou"):
                assert found.setdefault(event.step, event.value) == event.value
    return found


def assert_same_run(one: Path, other: Path) -> None:
    """The same validations, best and last weights, and final figures."""
    assert validations(one) == validations(other)
    assert_same_training(one, other)
    first, second = (torch.load(run / "checkpoints/best.ckpt", weights_only=True)
                     for run in (one, other))  # fmt: skip
    assert first["global_step"] == second["global_step"]
    assert first["callbacks"]["Checkpoints"] == second["callbacks"]["Checkpoints"]
    for name, tensor in first["state_dict"].items():
        assert torch.equal(tensor, second["state_dict"][name])
    assert results_of(one)["metrics"] == results_of(other)["metrics"]


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The run that nothing happens to."""
    from segtrain.cli.main import main

    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main([*RUN, f"hydra.run.dir={folder}"]) == 0
    assert len(validations(folder)) == 3
    return folder


@pytest.mark.parametrize(
    ("event", "count"),
    [pytest.param(*event, marks=() if event in SAMPLE else pytest.mark.slow) for event in EVENTS],
)
def test_crash_and_resume(segtrain, monkeypatch, whole, event, count):
    monkeypatch.syspath_prepend(TESTS)
    crash([*RUN, *strike_at(event, count, 0)])
    if (event, count) == ("save", 1):  # before there was anything to resume
        assert not Path("outputs/run/checkpoints/last.ckpt").exists()
        assert segtrain(*RUN, "hydra.run.dir=outputs/run")[0] == 0
    else:
        assert segtrain("resume=outputs/run", TRUST)[0] == 0
    assert_same_run(whole, Path("outputs/run"))
    if (event, count) == SAMPLE[0]:  # nothing is left to do, and nothing is done
        assert segtrain("resume=outputs/run", TRUST)[0] == 0
        assert_same_run(whole, Path("outputs/run"))


@pytest.mark.parametrize(
    ("event", "count"),
    [("step", 8), ("val_end", 3), *(pytest.param(*event, marks=pytest.mark.slow)
                                   for event in [("step", 4), ("step", 10), ("val_start", 3),
                                                 ("val_middle", 6), ("val_end", 2)])],
)  # fmt: skip
def test_signal_at_a_validation_and_resume(segtrain, monkeypatch, whole, event, count):
    monkeypatch.syspath_prepend(TESTS)
    struck = strike_at(event, count, signal.SIGTERM)
    assert segtrain(*RUN, *struck, "hydra.run.dir=outputs/run")[0] == 128 + signal.SIGTERM
    assert segtrain("resume=outputs/run", TRUST)[0] == 0
    assert_same_run(whole, Path("outputs/run"))


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize(("event", "count"), [e for e in EVENTS if e != ("save", 1)])
def test_kill_and_resume(event, count, devices):
    """SIGKILL to the real thing; of two processes to whichever gets there."""
    # As many batches a validation in a process, whether it has all images or half of them.
    settings = [*RUN, f"trainer.devices={devices}", f"dataset.eval_batch_size={2 // devices}"]
    assert process(*settings, "hydra.run.dir=outputs/whole").returncode == 0
    killed = process(
        *settings, *strike_at(event, count, signal.SIGKILL), "hydra.run.dir=outputs/run"
    )
    assert killed.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    resumed = process("resume=outputs/run", TRUST)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_run(Path("outputs/whole"), Path("outputs/run"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """devices -> settings, folder and seconds of the run that nothing happens to, each run once."""

    @functools.cache
    def run(devices: int) -> tuple[list[str], Path, float]:
        # As many batches a validation in a process, whether it has all images or half of them.
        settings = [*RUN, f"trainer.devices={devices}", f"dataset.eval_batch_size={2 // devices}"]
        folder = tmp_path_factory.mktemp("undisturbed") / "run"
        done = process(*settings, f"hydra.run.dir={folder}")
        assert done.returncode == 0, done.stderr
        lines = (folder / "run.log").read_text().splitlines()
        first, last = (datetime.fromisoformat(lines[i][:23].replace(",", ".")) for i in (0, -1))
        return settings, folder, (last - first).total_seconds() + 1  # the end of the test among it

    return run


def kill_after(seconds: float, log: Path, *arguments: str) -> None:
    """SIGKILL to a command alone, so long after its first line; what it has started ends too."""
    size = log.stat().st_size if log.is_file() else 0
    struck = start("-m", "segtrain", *arguments)
    while struck.poll() is None and not (log.is_file() and log.stat().st_size > size):
        time.sleep(0.01)
    time.sleep(seconds)
    begun = children(struck.pid)
    struck.kill()  # nothing if it has ended
    struck.communicate()
    deadline = time.monotonic() + 5
    while any(map(is_alive, begun)):
        assert time.monotonic() < deadline, "a process outlived the one that started it"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "seed"), [(devices, seed) for devices in (1, 2) for seed in range(12 // devices)]
)
def test_kills_at_random_moments(undisturbed, devices, seed):
    """Twice in one run, the second time as it goes on, or from its start if nothing was saved."""
    settings, whole, seconds = undisturbed(devices)
    run, generator = Path("outputs/run"), random.Random(10 * devices + seed)

    def arguments() -> list[str]:
        is_begun = (run / "checkpoints/last.ckpt").is_file()
        return [f"resume={run}"] if is_begun else [*settings, f"hydra.run.dir={run}"]

    for _ in range(2):
        delay = generator.uniform(0, seconds)
        print(f"{delay:.2f} of {seconds:.2f} s after the first line of {arguments()[-1]}")
        kill_after(delay, run / "run.log", *arguments())
    done = process(*arguments())
    assert done.returncode == 0, done.stderr
    assert_same_run(whole, run)


def test_a_worse_validation_never_replaces_a_better_one(segtrain, monkeypatch):
    """Killed between a validation and the save after it, then trained to something worse."""
    monkeypatch.syspath_prepend(TESTS)
    settings = [*RUN, "callback.ema.decay=0.0"]
    crash([*settings, *strike_at("save", 4, 0)])
    best = Path("outputs/run/checkpoints/best.ckpt")
    assert best.is_file()
    content = torch.load(best, weights_only=True)
    content["callbacks"]["Checkpoints"]["best_score"] = 0.999  # nothing can beat it
    torch.save(content, best)
    assert segtrain("resume=outputs/run", TRUST)[0] == 0
    after = torch.load(best, weights_only=True)
    assert after["global_step"] == content["global_step"]
    assert after["callbacks"]["Checkpoints"]["best_score"] == 0.999


def test_an_early_stop_stays_one(segtrain, monkeypatch):
    """A run that stopped early, killed before its test, does not go on training."""
    monkeypatch.syspath_prepend(TESTS)
    settings = [*RUN, "callback=[ema,early_stopping]", "callback.early_stopping.patience=1",
                "callback.early_stopping.min_delta=1.0"]  # fmt: skip
    assert segtrain(*settings, "hydra.run.dir=outputs/whole")[0] == 0
    assert results_of(Path("outputs/whole"))["global_step"] == 8
    crash([*settings, *strike_at("test", 1, 0)])
    assert segtrain("resume=outputs/run", TRUST)[0] == 0
    assert_same_run(Path("outputs/whole"), Path("outputs/run"))
    speed = results_of(Path("outputs/run"))["timing"]["train_images_per_second"]
    assert speed > 0
