"""What a job of a sweep gets of the machine, and how its end is read."""

import os
from pathlib import Path

import pytest

from segtrain.cli.sweep_job import message_of, share_of_gpus, share_of_threads, slot, state_of
from segtrain.errors import PRUNED, RunStopped, UserError


@pytest.mark.parametrize(
    ("given", "jobs", "devices", "expected"),
    [(None, 2, 1, 4), (None, 1, 2, 4), (None, 16, 1, 1), ("4", 2, 1, 4), ("4", 2, 2, 2)],
)
def test_threads_are_shared_out(monkeypatch, given, jobs, devices, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert share_of_threads(jobs, devices) == {"OMP_NUM_THREADS": str(expected)}


@pytest.mark.parametrize(
    ("visible", "number", "devices", "expected"),
    [("0,1,2,3", 1, 1, "1"), ("4,5,6,7", 1, 2, "6,7"), ("4,5", 3, 1, "5"), ("7", 1, 1, None)],
)
def test_gpus_are_shared_out(monkeypatch, visible, number, devices, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert share_of_gpus(number, devices).get("CUDA_VISIBLE_DEVICES") == expected


def test_slots_are_held_by_one_job_each():
    with slot(Path("sweep"), 2) as first:
        with slot(Path("sweep"), 2) as second:
            assert {first, second} == {0, 1}
        with slot(Path("sweep"), 2) as third:
            assert third == second


@pytest.mark.parametrize(
    ("code", "state"), [(0, "done"), (PRUNED, "pruned"), (2, "failed"), (143, "stopped")]
)
def test_states_by_exit_code(code, state):
    assert state_of(code) == state


def test_messages_are_those_printed():
    assert message_of(UserError("no such file")) == "no such file"
    assert message_of(RunStopped("stopped", exit_code=143)) == "stopped"
    assert message_of(ZeroDivisionError("x")) == "ZeroDivisionError: x"
