"""A wrong value in the configuration that a run has stored: one message that names the file."""

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from predicting import picture, write_run

from segtrain.cli.evaluate import find_source, rebuild_task
from segtrain.cli.resume import resume
from segtrain.configuration.schema import Recipe
from segtrain.errors import UserError
from segtrain.loading import load

COMMAND = {"run": "run", "checkpoint": None, "trust_code": False, "ensemble": [], "split": None,
           "output_stride": None, "trainer": {"accelerator": "cpu"}}  # fmt: skip
BY_DAY = [("architecture",), ("architecture", "backbone"), ("dataset", "source", "size"),
          ("dataset", "transform", "crop_size"), ("inference", "scales"), ("trainer",),
          ("batch_size",), ("optimizer", "lr")]  # fmt: skip


def places(node: dict, above: tuple = ()) -> Iterator[tuple]:
    """Every key of a configuration, with those above it."""
    for key, value in node.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from places(value, (*above, key))


def changed(node: dict, place: tuple, value: object) -> dict:
    key, *rest = place
    return node | {key: changed(node[key], rest, value) if rest else value}


def store(config: dict) -> None:
    for path in Path("run/checkpoints").iterdir():
        content = torch.load(path, weights_only=True)
        content["segtrain"]["config"] = config
        torch.save(content, path)
    Path("run/config.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture
def stored() -> dict:
    """A run folder `run`; the configuration that it has stored."""
    write_run(Path("run"))
    shutil.copy("run/checkpoints/best.ckpt", "run/checkpoints/last.ckpt")
    content = torch.load("run/checkpoints/best.ckpt", weights_only=True)
    return content["segtrain"]["config"]


READERS = {
    "evaluate": ("run/checkpoints/best.ckpt", lambda: rebuild_task(COMMAND, find_source(COMMAND))),
    "predict": ("run/checkpoints/best.ckpt", lambda: load("run", device="cpu")),
    "resume": ("run/config.yaml", lambda: resume("run", [])),
}


@pytest.mark.parametrize("value", ["wrong", ["wrong"]])
@pytest.mark.parametrize("reader", READERS)
def test_a_wrong_value_is_named_with_its_file(stored, reader, value):
    file, read = READERS[reader]
    for place in BY_DAY:
        store(changed(stored, place, value))
        if place[0] in ("architecture", "inference") or reader != "predict":
            with pytest.raises(UserError, match=rf"^{file}: .*{re.escape('.'.join(place))}"):
                read()
        else:
            read()  # nothing of it is used


@pytest.mark.slow
@pytest.mark.parametrize("value", ["wrong", -1.5, ["wrong"], {"wrong": 1}, None])
@pytest.mark.parametrize("reader", READERS)
def test_every_wrong_value_is_refused_or_does_no_harm(stored, reader, value):
    _, read = READERS[reader]
    for place in places(stored):
        store(changed(stored, place, value))
        with contextlib.suppress(UserError):
            read()


def test_what_older_runs_lack_is_not_missed(stored):
    """Keys that have come later, and what an older version stored beside."""
    older = {key: value for key, value in stored.items() if key in Recipe.__required_keys__}
    older |= {"experiment": "old", "no_more": {"a": 1}}
    del older["trainer"]["max_restarts"]
    store(older)
    for _, read in READERS.values():
        read()


@pytest.mark.parametrize("command", ["evaluate", "predict", "export", "resume"])
def test_one_message_of_every_command(segtrain, stored, command):
    store(changed(stored, ("architecture", "backbone"), 3))
    picture("a.png")
    commands = {
        "evaluate": ["evaluate", "run=run"], "predict": ["predict", "run=run", "input=a.png"],
        "export": ["export", "run=run"], "resume": ["resume=run"],
    }  # fmt: skip
    code, _, err = segtrain(*commands[command])
    assert code == 2, err
    assert err.startswith("segtrain: error: run/")
    assert "architecture.backbone=3: expected" in err
