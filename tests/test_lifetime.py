"""Nothing outlives who started it, nothing waits for ever, and signals are answered anywhere."""

import os
import re
import signal
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
from conftest import TINY
from predicting import picture, write_run
from processes import children, end, start
from torch.utils.data import DataLoader

from segtrain import lifetime
from segtrain.cli.explain import explain
from segtrain.dataset.workers import one_thread

LONG = [*TINY, "trainer.max_steps=100000", "trainer.val_every_n_steps=100000",
        "trainer.log_every_n_steps=1", "hydra.run.dir=run"]  # fmt: skip


def await_that(seen, process) -> None:
    """Until something is there, while the process runs."""
    deadline = time.monotonic() + 120
    while not seen():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_at_step(number: int) -> bool:
    log = Path("run/run.log")
    return log.is_file() and f"step {number}/" in log.read_text()


def alive(pids: list[int]) -> list[int]:
    """Those that still run."""
    found = []
    for pid in pids:
        stat = Path(f"/proc/{pid}/stat")
        if stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
            found.append(pid)
    return found


def await_end(pids: list[int]) -> None:
    """Until none of them runs, which takes 5 s at most."""
    deadline = time.monotonic() + 5
    while alive(pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("settings", [["dataset.num_workers=2"], ["trainer.devices=2"]])
def test_a_killed_command_takes_all_with_it(settings):
    process = start("-m", "segtrain", *LONG, *settings)
    await_that(lambda: is_at_step(3), process)
    started = children(process.pid)
    assert len(started) >= 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    await_end(started)
    process.communicate()


@pytest.mark.parametrize("asks_linux", [True, False])
def test_end_with_parent(asks_linux):
    child = "from segtrain import lifetime; import time\n"
    child += "" if asks_linux else "lifetime._ask_linux = lambda number: False\n"
    child += "lifetime.end_with_parent(); print('ready', flush=True); time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = start("-c", parent)
    assert process.stdout.readline() == "ready\n"
    started = children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=10)  # the pipe is closed when the child ends
    await_end(started)


def test_a_parent_that_has_ended_already():
    child = "from segtrain import lifetime; lifetime.end_with_parent(parent=1 << 30); print(1)"
    assert end(start("-c", child))[:2] == (-signal.SIGKILL, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", ["import torch", "import time; time.sleep(600)",
                                   "import ctypes; ctypes.CDLL(None).sleep(600)"])  # fmt: skip
def test_signals_end_a_command_wherever_it_is(number, after):
    code = "from segtrain.lifetime import end_at_signals as e; e(); print(1, flush=True); "
    process = start("-c", code + after + "\nimport time; time.sleep(600)")
    assert process.stdout.readline() == "1\n"
    process.send_signal(number)
    found, _, err = end(process, timeout=10)
    assert found == 128 + number
    assert err == f"segtrain: stopped by {signal.Signals(number).name}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_training_waits_for_a_stopped_worker(number):
    """The steps that are done are saved."""
    process = start("-m", "segtrain", *LONG, "dataset.num_workers=1")
    await_that(lambda: is_at_step(3), process)
    (worker,) = children(process.pid)
    os.kill(worker, signal.SIGSTOP)
    log = Path("run/run.log")
    size = -1
    while size != (size := log.stat().st_size):
        time.sleep(1)
    process.send_signal(number)
    code, _, err = end(process, timeout=30)
    assert code == 128 + number
    step = re.search(rf"stopped by {signal.Signals(number).name} after step (\d+); saved", err)[1]
    assert f"step {step}/" in log.read_text()
    await_end([worker])


def test_predict_ends_after_an_error_while_workers_run(tmp_path):
    write_run(tmp_path / "trained")
    for number in range(40):
        picture(f"in/{number:02}.png", seed=number)
    Path("out/00.png").mkdir(parents=True)
    process = start("-m", "segtrain", "predict", "run=trained", "input=in", "output=out",
                    "num_workers=2", "device=cpu")  # fmt: skip
    code, _, err = end(process, timeout=100)
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "out/00.png: " in err


class Letters:
    def __len__(self):
        return 100

    def __getitem__(self, index):
        return index


def test_a_stopped_worker_is_ended():
    loader = DataLoader(Letters(), num_workers=1, worker_init_fn=one_thread)
    batches = iter(loader)
    next(batches)
    (worker,) = batches._workers
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises((RuntimeError, ConnectionError, EOFError)) as caught, \
            lifetime.ending_stopped_workers(patience=1):  # fmt: skip
        list(batches)
    assert "a loader worker died" in explain(caught.value)[0]


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError])
def test_a_worker_that_ends_while_its_batch_is_taken(monkeypatch, error):
    """PyTorch sees it a moment later."""
    batches = iter(DataLoader(Letters(), num_workers=1, worker_init_fn=one_thread))
    monkeypatch.setattr("multiprocessing.connection.answer_challenge", Mock(side_effect=error))
    with pytest.raises((ConnectionError, EOFError)) as caught:
        list(batches)
    assert "a loader worker died" in explain(caught.value)[0]
    assert explain(caught.type()) is None  # of something else


@pytest.mark.parametrize("collate", ["None", "torch.stack"])  # in shared memory itself, or not
def test_no_room_in_shared_memory(collate):
    """What a worker cannot hand over is not waited for."""
    process = start("-c", NO_ROOM.replace("COLLATE", collate))
    code, out, err = end(process, timeout=60)
    assert code == 0, err
    assert "Traceback" not in err
    assert "a loader worker died" in out
    assert "/dev/shm" in out


NO_ROOM = """
import torch
from faults import largest_file
from segtrain.cli.explain import explain
from segtrain.dataset.workers import one_thread
from segtrain.lifetime import end_children
from torch.utils.data import DataLoader
with largest_file(1000):
    try:
        list(DataLoader(torch.zeros(4, 10000), num_workers=1, worker_init_fn=one_thread,
                        collate_fn=COLLATE))
    except RuntimeError as error:
        print(*explain(error))
end_children()
"""


@pytest.mark.parametrize("command", ["train", "evaluate", "predict"])
def test_a_worker_that_never_answers(segtrain, monkeypatch, tmp_path, command):
    """As where a network share hangs: the worker is alive, and no signal ends its reading."""
    write_run(tmp_path / "trained")
    for number in range(9):
        picture(f"in/{number}.png", seed=number)

    def hang(*arguments):
        time.sleep(600)

    monkeypatch.setattr("segtrain.cli.ahead.read_picture", hang)
    monkeypatch.setattr("segtrain.dataset.stream.TrainStream.__getitem__", hang)
    monkeypatch.setattr("segtrain.dataset.stream.EvalImages.__getitem__", hang)
    waits = ["dataset.num_workers=1", "dataset.timeout=1"]
    shapes = ["dataset=shapes", *(o for o in TINY if o.startswith("dataset.source."))]
    commands = {
        "train": [*TINY, *waits],
        "evaluate": ["evaluate", "run=trained", "trainer.accelerator=cpu", *shapes, *waits],
        "predict": ["predict", "run=trained", "input=in", "device=cpu", "num_workers=1",
                    "timeout=1"],
    }  # fmt: skip
    code, _, err = segtrain(*commands[command])
    lifetime.end_children()
    assert code == 1, err
    assert len(err.splitlines()) == 1, err
    assert "the loader workers have given no batch for 1 s" in err
    assert "dataset.timeout" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_temporary_folder_goes_at_a_signal(number):
    code = ("import time; from segtrain.lifetime import end_at_signals, temporary_folder\n"
            "end_at_signals()\n"
            "with temporary_folder() as folder:\n"
            "    (folder / 'a').touch(); print(folder, flush=True); time.sleep(60)")  # fmt: skip
    process = start("-c", code)
    folder = Path(process.stdout.readline().strip())
    assert (folder / "a").is_file(), process.stderr.read()
    process.send_signal(number)
    assert end(process)[0] == 128 + number
    assert not folder.exists()


def test_a_temporary_folder_goes_in_the_end():
    with lifetime.temporary_folder() as folder:
        (folder / "a").touch()
    assert not folder.exists()
