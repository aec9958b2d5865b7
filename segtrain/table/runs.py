"""Run folders: what finished, what did not and why."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import yaml

from segtrain.errors import UserError
from segtrain.headlines import HEADLINES
from segtrain.report.results import SCHEMA, Results

REQUIRED = {
    "experiment": str, "architecture": str, "dataset": str, "split": str, "protocol": dict,
    "metrics": dict, "seed": int, "timing": dict, "peak_memory_bytes": dict,
}  # fmt: skip
TRAINING = {"experiment", "optimizer", "trainer"}  # keys of config.yaml by which it is told
EVALUATION = {"checkpoint", "split", "ensemble"}
PASSED_OVER = ("checkpoints", "tensorboard")
LOG_TAIL = 65536  # bytes


@dataclass(frozen=True)
class Run:
    """A finished training or evaluation.

    Args:
        folder: where it lies.
        results: content of its `results.json`.
        config: content of its `config.yaml`, if there is one.
    """

    folder: Path
    results: Results
    config: dict[str, Any] | None

    @property
    def metric(self) -> str:
        """The headline metric's name."""
        return HEADLINES[self.results["task"]]

    @property
    def score(self) -> float:
        """The headline metric, 0..1."""
        return self.results["metrics"][self.metric]

    @property
    def is_training(self) -> bool:
        """Whether it trained, and was not only evaluated again."""
        return self.results["timing"].get("train_seconds") is not None

    @property
    def report(self) -> Path | None:
        """Its `report.html`, if there is one."""
        path = self.folder / "report.html"
        return path if path.is_file() else None


@dataclass(frozen=True)
class Fault:
    """A run folder without usable results.

    Args:
        folder: where it lies.
        kind: `unfinished` or `broken`.
        reason: what is missing or wrong, and how to go on.
    """

    folder: Path
    kind: str
    reason: str


def find_runs(roots: Sequence[str | Path]) -> tuple[list[Run], list[Fault]]:
    """Everything below the folders, each real folder once; links are not followed.

    Raises:
        UserError: a folder does not exist.
    """
    runs: list[Run] = []
    faults: list[Fault] = []
    seen = set()
    for root in map(Path, roots):
        if not root.is_dir():
            raise UserError(f"runs={root}: no such folder; give folders that hold runs, such as "
                            "runs=[outputs]")  # fmt: skip
        for place, folders, files in os.walk(root):
            folder = Path(place)
            folders[:] = sorted(n for n in folders if n not in PASSED_OVER and n[0] != ".")
            if (real := folder.resolve()) in seen:
                continue
            seen.add(real)
            found = read_folder(folder, files)
            if isinstance(found, Run):
                runs.append(found)
            elif found is not None:
                faults.append(found)
    return runs, faults


def read_folder(folder: Path, files: Sequence[str]) -> Run | Fault | None:
    """What one folder is; None where it is no run's."""
    if "results.json" in files:
        try:
            results = read_results(folder / "results.json")
        except UserError as error:
            return Fault(folder, "broken", str(error))
        return Run(folder, results, read_config(folder))
    if "chain.yaml" in files:
        return unfinished_chain(folder)
    if "config.yaml" not in files:
        return None
    config = read_config(folder)
    if config is None:
        return Fault(folder, "broken", "config.yaml cannot be read, and there is no results.json")
    if config.keys() >= TRAINING and "measure" not in config:
        return Fault(folder, "unfinished", unfinished_training(folder))
    if config.keys() >= EVALUATION and "submission.json" not in files:
        return Fault(folder, "unfinished", "evaluation without results.json")
    return None


def read_results(path: Path) -> Results:
    """Content of a `results.json` that the tables can use.

    Raises:
        UserError: says what is wrong with it.
    """
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if not isinstance(results, dict) or results.get("schema") != SCHEMA:
        found = results.get("schema") if isinstance(results, dict) else type(results).__name__
        raise UserError(f"{path}: has schema {found}, expected {SCHEMA}")
    if results.get("task") not in HEADLINES:
        raise UserError(f"{path}: task is {results.get('task')!r}, expected one of "
                        + ", ".join(HEADLINES))  # fmt: skip
    for key, kind in REQUIRED.items():
        if not isinstance(results.get(key), kind):
            found = f"is {results[key]!r}" if key in results else "is missing"
            raise UserError(f"{path}: {key} {found}, expected {kind.__name__}")
    headline = HEADLINES[results["task"]]
    value = results["metrics"].get(headline)
    if not isinstance(value, int | float):
        raise UserError(f"{path}: metrics has no number for {headline}, found {value!r}")
    return results


def read_config(folder: Path) -> dict[str, Any] | None:
    """Content of a folder's `config.yaml`; None where there is none, or it is damaged."""
    try:
        config = yaml.load((folder / "config.yaml").read_text(), _LOADER)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return config if isinstance(config, dict) else None


def unfinished_training(folder: Path) -> str:
    """How far it came, and the command that goes on."""
    step = last_step(folder / "run.log")
    reached = f"ended or still running at step {step}" if step else "no step is logged"
    if (folder / "checkpoints" / "last.ckpt").is_file():
        return f"{reached}; go on with: segtrain {quote(f'resume={folder}')}"
    return f"{reached}; nothing was saved"


def unfinished_chain(folder: Path) -> Fault | None:
    """A chain whose stages that were begun are all done; others are told by their own folders."""
    try:
        stages = yaml.safe_load((folder / "chain.yaml").read_text())["stages"]
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError):
        return Fault(folder, "broken", "chain.yaml cannot be read, and there is no results.json")
    begun = [path for path in folder.glob("*_*/") if (path / "config.yaml").is_file()]
    if any(not (path / "results.json").is_file() for path in begun):
        return None
    reason = f"{len(begun)} of {len(stages)} stages are done; go on with: segtrain chain "
    return Fault(folder, "unfinished", f"{reason}{quote(f'resume={folder}')}")


def last_step(log: Path) -> str | None:
    """`120/900`, from the last progress line of a `run.log`."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    steps = re.findall(r"step (\d+/\d+)", text)
    return steps[-1] if steps else None


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a hundred configurations take seconds
