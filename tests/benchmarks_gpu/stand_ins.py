"""Parts without networks, for the tests of the queue: modules of this file's name have cells."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.cell import Cell, Figures, Setting, Skipped


@dataclass(frozen=True)
class Short(Cell):
    """A cell that is ended after a second."""

    def limit(self, setting: Setting) -> float:
        return 1


def good(setting: Setting) -> Figures:
    with Path(os.environ["MEASURED"]).open("a") as file:  # so that tests see how often
        file.write("good\n")
    return {"images/s": 12.5, "equal": True, "nothing": float("nan")}


def raising(setting: Setting) -> Figures:
    raise ValueError("no | such\nnetwork")


def greedy(setting: Setting) -> Figures:
    raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")


def killed(setting: Setting) -> Figures:
    os.kill(os.getpid(), 9)
    return {}


def hanging(setting: Setting) -> Figures:
    setting.report({"first": 1})
    time.sleep(600)
    return {}


def lacking(setting: Setting) -> Figures:
    raise Skipped("a package is not installed")


def slow(setting: Setting) -> Figures:
    for step in range(60):
        setting.report({"step": step})
        time.sleep(0.05)
    return {"step": 60}


def cells(setting: Setting) -> list[Cell]:
    return [
        Cell("good", 1, good), Cell("raising", 1, raising), Cell("greedy", 1, greedy),
        Cell("killed", 1, killed), Short("hanging", 1, hanging), Cell("lacking", 1, lacking),
        Cell("last", 1, good),
    ]  # fmt: skip
