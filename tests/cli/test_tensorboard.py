"""Where TensorBoard is opened, and what it is shown of a sweep."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from conftest import TINY
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from segtrain.cli.tensorboard import find_folder
from segtrain.errors import UserError


def write_events(folder: Path, when: int) -> None:
    file = folder / "tensorboard" / "events.out.tfevents.1"
    file.parent.mkdir(parents=True)
    file.touch()
    os.utime(file, (when, when))


def test_folder_of_all_runs_or_of_the_latest():
    write_events(Path("outputs/a/1"), 100)
    write_events(Path("outputs/multirun/a/2/0"), 200)
    assert find_folder("outputs") == Path("outputs")
    assert find_folder("latest") == Path("outputs/multirun/a/2/0")
    Path("outputs/multirun/a/2/sweep.json").touch()
    assert find_folder("latest") == Path("outputs/multirun/a/2")


@pytest.mark.parametrize("run", ["nowhere", "empty"])
def test_folder_without_events(run):
    Path("empty").mkdir()
    with pytest.raises(UserError, match=run):
        find_folder(run)


@pytest.mark.parametrize("option", ["port=x", "logdir=outputs"])
def test_wrong_options(segtrain, option):
    write_events(Path("outputs/a/1"), 100)
    assert segtrain("tensorboard", option)[0] == 2


def test_hparams_are_the_swept_keys(segtrain):
    settings = ["trainer.max_steps=2", "hydra.sweep.dir=outputs/sweep"]
    assert segtrain("-m", *TINY, *settings, "optimizer.lr=0.01,0.02", "seed=1")[0] == 0
    events = EventAccumulator("outputs/sweep/1/tensorboard").Reload()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    values = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert {key: value.number_value for key, value in values.items()} == {"optimizer.lr": 0.02}
    assert {"test/miou", "val/best_miou", "system/host_memory_gib"} <= set(events.Tags()["scalars"])


def test_serves_on_localhost():
    write_events(Path("outputs/a/1"), 100)
    server = subprocess.Popen([sys.executable, "-m", "segtrain", "tensorboard", "port=0"],
                              stdout=subprocess.PIPE, text=True)  # fmt: skip
    try:
        line = server.stdout.readline()
        assert "TensorBoard on outputs: http://localhost:" in line
        url = line.split()[3]
        deadline = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(f"{url}data/environment") as answer:
                    assert json.load(answer)["data_location"].endswith("outputs")
                return
            except urllib.error.URLError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
    finally:
        server.kill()
        server.wait()
