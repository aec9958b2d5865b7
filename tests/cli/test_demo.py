"""`segtrain demo`: where it listens, what it opens, and what it refuses."""

import json
import logging
import socket
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import composed
from predicting import SEMANTIC, write_run
from processes import listening, start

from segtrain.cli import demo
from segtrain.errors import UserError

SHAPES = ["dataset=shapes", "dataset.source.num_images={train: 4, val: 2, test: 2}",
          "dataset.source.size=[32, 40]"]  # fmt: skip


def test_it_listens_on_this_machine_alone_and_leaves_nothing_behind():
    write_run(Path("run"))
    process = start(
        "-m", "segtrain", "demo", "run=run", "port=0", "device=cpu", TMPDIR=str(Path.cwd())
    )
    try:
        line = process.stdout.readline()
        assert "http://127.0.0.1:" in line, process.stderr.read()
        assert listening(process.pid) == {"0100007F"}
        with urllib.request.urlopen(f"{line.split()[1]}about") as answer:
            assert json.load(answer)["task"] == "semantic"
        assert list(Path().glob("segtrain-*"))
    finally:
        process.terminate()
    _, err = process.communicate(timeout=20)
    assert process.returncode == 143
    assert "Traceback" not in err
    assert not list(Path().glob("segtrain-*"))


@pytest.mark.parametrize(("arguments", "told"), [
    ([], "run=<run folder>"),
    (["run=a", "weights=b"], "give one of"),
    (["run=nowhere"], "nowhere"),
    (["run=run", "port=99999"], "port"),
    (["run=run", "host=203.0.113.7"], "host=203.0.113.7"),
    (["run=run", "host="], "host"),
    (["run=run", "colour=red"], "colour"),
])  # fmt: skip
def test_what_is_refused(segtrain, arguments, told):
    for name in ("a", "run"):
        Path(name).mkdir()
    code, _, err = segtrain("demo", *arguments)
    assert code == 2
    assert told in err
    assert "Traceback" not in err


def test_a_port_that_is_taken(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port={taken}.*leave out port"):
            demo.listen("127.0.0.1", taken)
        monkeypatch.setattr(demo, "PORTS", [taken, 0])  # by itself it takes the next
        with demo.listen("127.0.0.1", None) as found:
            assert found.getsockname()[1] != taken


def test_another_host_is_warned_of(caplog):
    for host, warned in (("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "segtrain"), demo.listen(host, 0):
            assert ("no password" in caplog.text) == warned


def test_examples_are_those_of_the_validation_split():
    config = composed(*SEMANTIC, *SHAPES)
    example = demo.examples(config)
    first, second, again = (example().pixels for _ in range(3))
    assert first.shape == (32, 40, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)


def test_examples_of_a_data_set_that_is_gone(monkeypatch):
    monkeypatch.setenv("SEGTRAIN_DATA", "gone")
    example = demo.examples(composed("architecture=deeplabv3", "dataset=voc"))
    with pytest.raises(UserError, match="gone"):
        example()


def test_messages_of_what_nobody_thought_of(caplog):
    assert demo.message(UserError("a hint")) == "a hint"
    assert "out of memory" in demo.message(torch.OutOfMemoryError("CUDA out of memory."))
    assert "ZeroDivisionError" in demo.message(ZeroDivisionError("by zero"))
    assert "ZeroDivisionError" in caplog.text
