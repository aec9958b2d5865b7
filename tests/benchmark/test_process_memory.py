"""The memory of a process and its children."""

import multiprocessing
import subprocess
import sys
from types import SimpleNamespace

from segtrain.benchmark.memory import process_memory


def test_a_child_that_has_just_ended_holds_nothing(monkeypatch):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    monkeypatch.setattr(
        multiprocessing, "active_children", lambda: [SimpleNamespace(pid=ended.pid)]
    )
    assert process_memory() > 1e6


def test_a_child_that_waits_to_be_collected_holds_nothing(monkeypatch):
    zombie = subprocess.Popen([sys.executable, "-c", "print()"], stdout=subprocess.PIPE)
    zombie.stdout.read()  # closed: it has ended, or does so now
    monkeypatch.setattr(
        multiprocessing, "active_children", lambda: [SimpleNamespace(pid=zombie.pid)]
    )
    assert process_memory() > 1e6
    zombie.wait()
