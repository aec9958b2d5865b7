"""What `results.json` tells of the circumstances, where some of it cannot be found out."""

import os
import resource
import subprocess

import pytest
import torch
from conftest import TINY, only_run, results_of

from segtrain.report import results
from segtrain.report.results import environment, seconds_to

# What each figure is asked of, and where it stands.
SOURCES = {
    "host memory": (resource, "getrusage", ("peak_memory_bytes", "host")),
    "device memory": (torch.cuda, "max_memory_allocated", ("peak_memory_bytes", "device")),
    "code revision": (subprocess, "run", ("git_revision",)),
    "versions": (results, "version", ("versions", "torch")),
}


class StrangeError(Exception):
    """Not one of those that the standard library raises."""


def fail(*arguments, **settings):
    raise StrangeError


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 5)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", SOURCES)
def test_a_figure_that_fails_is_none_and_the_others_are_there(name, monkeypatch):
    def found(figure):
        node = environment()
        for key in SOURCES[figure][2]:
            node = node.get(key)
        return node

    known = {figure for figure in SOURCES if found(figure) is not None}
    assert known >= SOURCES.keys() - {"code revision"}  # this may be no checkout
    owner, function, _ = SOURCES[name]
    monkeypatch.setattr(owner, function, fail)
    assert {figure for figure in SOURCES if found(figure) is not None} == known - {name}


def test_a_run_of_which_no_figure_is_known_writes_its_results(segtrain, monkeypatch):
    for owner, function, _ in SOURCES.values():
        monkeypatch.setattr(owner, function, fail)
    monkeypatch.setattr(os, "sysconf", fail)  # of the log's host memory
    code, _, err = segtrain(*TINY)
    assert code == 0, err
    written = results_of(only_run())
    assert written["peak_memory_bytes"] == {"host": None, "device": None}
    assert written["git_revision"] is None
    assert written["versions"].keys() == {"python"}
    assert written["metrics"]["miou"] is not None


def test_seconds_to_a_score():
    made = [{"step": step, "seconds": 10.0 * step, "score": score}
            for step, score in ((1, 0.3), (2, 0.52), (3, 0.49), (4, 0.7))]  # fmt: skip
    results = {"timing": {"validations": made}}
    assert [seconds_to(results, score) for score in (0.3, 0.5, 0.7, 0.71)] == [10, 20, 40, None]
    assert seconds_to({"timing": {"validations": None}}, 0.0) is None
    assert seconds_to({"timing": {}}, 0.0) is None
