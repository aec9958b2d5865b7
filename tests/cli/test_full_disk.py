"""Whichever write of a command a full disk ends: one message, and nothing there is lost."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY, write_pair
from faults import largest_file
from predicting import picture, write_video
from processes import end, start

from segtrain.cli.explain import explain

FOLDER = "hydra.run.dir=own"
CPU = "trainer.accelerator=cpu"
COMMANDS = {
    "train": [*TINY, FOLDER],
    "train on": ["resume=run", "trainer.max_steps=3"],
    "evaluate": ["evaluate", "run=run", CPU, FOLDER],
    "predict": ["predict", "run=run", "input=in", "output=out", "device=cpu", FOLDER],
    "predict a video": ["predict", "run=run", "input=a.mp4", "output=out", "device=cpu", FOLDER],
    "export": ["export", "run=run", "format=safetensors", "output=out/model", FOLDER],
    "export a program": ["export", "run=run", "format=torch_export", "output=out/a.pt2", FOLDER],
    "prepare": ["prepare", "dataset=folder", "dataset.source.root=pairs", FOLDER],
    "preview": ["prepare", "dataset=folder", "dataset.source.root=pairs", "preview=true", FOLDER],
    "shards": ["prepare", "dataset=folder", "dataset.source.root=pairs", "shards=1", "output=out",
               FOLDER],
    "table": ["table", "runs=run", "output=[out/a.md,out/a.csv,out/a.html]", FOLDER],
    "report": ["report", "run=run", "examples=0", CPU, FOLDER],
}  # fmt: skip
# Bytes of the largest file: the configuration, the log and tables, then pictures and checkpoints.
LIMITS = {
    "train": [300, 20_000, 500_000], "train on": [500_000],
    "evaluate": [300, 1500], "predict": [600, 2000], "predict a video": [1500],
    "export": [300, 100_000], "export a program": [100_000], "prepare": [300, 1000],
    "preview": [2000, 20_000], "shards": [900, 4000], "table": [300, 5000], "report": [300, 5000],
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from segtrain.cli.main import main

    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main([*TINY, "trainer.max_steps=1", f"hydra.run.dir={folder}"]) == 0
    return folder


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    """What the commands read, in the current folder."""
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))
    shutil.copytree(trained, "run")
    for number in range(3):
        picture(f"in/{number}.png", seed=number)
    write_video("a.mp4")
    rng = torch.Generator().manual_seed(0)
    for name in "abcdef":
        mask = torch.randint(0, 2, (40, 48), generator=rng, dtype=torch.uint8).numpy()
        write_pair(Path("pairs"), name, mask)
    Path("pairs/classes.txt").write_text("sky\nroad\n")
    Path("pairs/train.txt").write_text("a\nb\nc\n")
    Path("pairs/val.txt").write_text("d\ne\nf\n")


def content() -> dict[Path, bytes]:
    """Every file but the logs, which grow."""
    return {path: path.read_bytes() for path in Path().rglob("*")
            if path.is_file() and path.suffix not in (".log", ".lock")
            and "events" not in path.name}  # fmt: skip


@pytest.mark.parametrize(
    ("command", "limit"),
    [(command, limit) for command in COMMANDS for limit in LIMITS[command]],
)
def test_one_message_and_nothing_lost(segtrain, place, command, limit):
    before = content()
    with largest_file(limit):
        code, _, err = segtrain(*COMMANDS[command])
    assert code == 1, err
    assert len(err.splitlines()) == 1, err
    line = err.rstrip()
    named, _, rest = line.removeprefix("segtrain: error: ").partition(": ")
    assert rest.startswith(("File too large; what was saved before is untouched", "Input/output"))
    assert Path(named).resolve().is_relative_to(Path.cwd()), line
    after = content()
    unfinished = [path for path in after if "partial" in str(path) and "shards" not in command]
    assert not unfinished
    for path, data in before.items():
        if path != Path("run/config.yaml"):  # a resumed run's tells that it is one
            assert after[path] == data, path


@pytest.mark.parametrize("command", COMMANDS)
def test_with_room_for_it_the_same_commands_succeed(segtrain, place, command):
    code, _, err = segtrain(*COMMANDS[command])
    assert code == 0, err


def test_a_log_on_a_full_disk(segtrain):
    Path("own").mkdir()
    os.symlink("/dev/full", "own/run.log")
    code, _, err = segtrain(*TINY, FOLDER)
    assert code == 1
    assert len(err.splitlines()) == 1
    assert f"{Path('own/run.log').resolve().parent / 'run.log'}: No space left" in err or (
        "own/run.log: No space left on device" in err
    )


def test_the_thread_that_writes_for_tensorboard_says_nothing_itself():
    """What ended it is raised where the training logs next, and told there."""
    code, out, err = end(start("-c", FULL_EVENTS), timeout=100)
    assert (code, out, err) == (0, "File too large\n", "")


FULL_EVENTS = """
from pathlib import Path
from faults import largest_file
from segtrain.cli.logs import configure_logging
from torch.utils.tensorboard import SummaryWriter
configure_logging(Path("run.log"))
writer = SummaryWriter("events")
with largest_file(2000):
    try:
        for step in range(10_000):
            writer.add_scalar("loss", step, step)
            writer.flush()
    except OSError as error:
        print(error.strerror)
    try:
        writer.close()
    except OSError:
        pass
"""


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "export", "table"])
def test_a_file_in_the_place_of_the_folder(segtrain, place, command):
    Path("own").write_text("a file")
    code, _, err = segtrain(*COMMANDS[command])
    assert code == 1
    assert len(err.splitlines()) == 1, err
    line = err.rstrip()
    assert "own" in line
    assert Path("own").read_text() == "a file"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 8.00 TiB"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_memory_used_up(error):
    message, code = explain(error)
    assert code == 1
    for key in ("batch_size", "crop_size", "trainer.precision", "accumulate_grad_batches"):
        assert key in message


def test_memory_of_the_host_used_up(segtrain):
    code, _, err = segtrain(*TINY, "dataset.transform.crop_size=[3000000,3000000]")
    assert code == 1
    assert len(err.splitlines()) == 1, err
    line = err.rstrip()
    assert "out of memory" in line
    assert "batch_size" in line
