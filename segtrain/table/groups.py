"""Runs that differ in nothing but their seed, as one result with mean and spread."""

import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segtrain.report.results import Results
from segtrain.table.runs import EVALUATION, Run, read_config

NO_PART_OF_THE_RECIPE = ("seed", "resume", "published", "extra_metrics")


@dataclass(frozen=True)
class Group:
    """Runs of one recipe, data, split and protocol.

    Args:
        runs: one a seed, in the seeds' order.
        repeated: older runs of the same seeds, which do not count.
        config: configuration of the (first) training behind them; None where it is not known.
    """

    runs: tuple[Run, ...]
    repeated: tuple[Run, ...]
    config: dict[str, Any] | None

    @property
    def results(self) -> Results:
        """What all runs share, from the first."""
        return self.runs[0].results

    @property
    def metric(self) -> str:
        """The headline metric's name."""
        return self.runs[0].metric

    @property
    def mean(self) -> float:
        """Of the headline metric over the seeds, 0..1."""
        return statistics.mean(run.score for run in self.runs)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation of the headline metric, 0..1; None for a single seed."""
        return statistics.stdev(run.score for run in self.runs) if len(self.runs) > 1 else None

    @property
    def seeds(self) -> list[int]:
        """In their order."""
        return [run.results["seed"] for run in self.runs]

    def average(self, value: Callable[[Results], float | None]) -> float | None:
        """Mean over the runs of a value of `results.json`; None where no run has it."""
        known = [v for run in self.runs if (v := value(run.results)) is not None]
        return statistics.mean(known) if known else None


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Groups in the order in which their first runs were found; nothing is counted twice."""
    single = without_duplicates(runs)
    trained = {run.results.get("checkpoint_sha256"): run for run in single if run.is_training}
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in single:
        groups[identity(run) + recipe(run, trained)].append(run)
    made = []
    for members in groups.values():
        newest_first = sorted(members, key=finished, reverse=True)
        by_seed = {run.results["seed"]: run for run in reversed(newest_first)}
        chosen = tuple(by_seed[seed] for seed in sorted(by_seed))
        repeated = tuple(run for run in members if run not in chosen)
        made.append(Group(chosen, repeated, training_config(chosen[0], trained)))
    return made


def without_duplicates(runs: Sequence[Run]) -> list[Run]:
    """One run for each checkpoint and protocol: a chain's copy, and the same evaluation, go.

    The training itself, with its configuration, is kept before others, the latest before older.
    """
    best: dict[str, Run] = {}
    for number, run in enumerate(runs):
        # Older results have no hash of the checkpoint.
        checkpoint = run.results.get("checkpoint_sha256") or str(number)
        key = identity(run) + checkpoint
        if key not in best or worth(run) > worth(best[key]):
            best[key] = run
    kept = {id(run) for run in best.values()}
    return [run for run in runs if id(run) in kept]


def worth(run: Run) -> tuple:
    """Of two results of one checkpoint, the larger is kept."""
    return run.is_training, run.config is not None, finished(run)


def finished(run: Run) -> str:
    """When it ended, as ISO 8601 text, which is in order of time."""
    return str(run.results.get("finished", ""))


def identity(run: Run) -> str:
    """What was measured: network, data, split and protocol."""
    of = run.results
    fields = [of[key] for key in ("experiment", "architecture", "dataset", "split", "protocol")]
    return json.dumps([*fields, of.get("images"), of.get("parameters")], sort_keys=True)


def recipe(run: Run, trained: dict[str, Run]) -> str:
    """The configuration of the run without its seed, as text to compare.

    An evaluation has that of the training behind its checkpoint and its own settings. Without any
    configuration the hash in the results counts, which no other seed shares.

    Args:
        run: whose recipe.
        trained: trainings by the hash of their checkpoint.
    """
    training = training_config(run, trained)
    if training is None:
        return str(run.results.get("config_sha256", run.folder))
    if training is run.config:
        return _plain(seedless(training))
    members = [origin_of(member) for member in run.config["ensemble"] or ()]
    checkpoint = Path(str(run.results.get("checkpoint"))).name
    own = run.config | {"run": None, "checkpoint": checkpoint, "ensemble": members}
    return _plain([seedless(training), own])


def training_config(run: Run, trained: dict[str, Run]) -> dict[str, Any] | None:
    """Configuration of the training behind a run, found by the checkpoint's hash or place."""
    if run.config is None or not run.config.keys() >= EVALUATION:
        return run.config
    origin = trained.get(run.results.get("checkpoint_sha256"))
    if origin is not None and origin.config is not None:
        return origin.config
    return config_of(Path(str(run.results.get("checkpoint"))))


def seedless(config: dict[str, Any]) -> dict[str, Any]:
    """A training's configuration without what tells seeds apart.

    The checkpoint that it started from lies in another folder for every seed; the configuration
    behind it, without its seed, takes its place.
    """
    kept = {key: value for key, value in config.items() if key not in NO_PART_OF_THE_RECIPE}
    if kept.get("weights"):
        origin = origin_of(kept["weights"])
        unknown = origin == kept["weights"] and Path(origin).is_absolute()
        kept["weights"] = (kept.get("starts_from") or origin) if unknown else origin
    return kept


def origin_of(source: str) -> Any:
    """The seedless configuration behind a run folder or checkpoint; else its name."""
    path = Path(source)
    config = read_config(path) if path.is_dir() else config_of(path)
    return source if config is None else seedless(config)


def config_of(checkpoint: Path) -> dict[str, Any] | None:
    """Configuration of the run in whose folder a checkpoint lies."""
    return read_config(checkpoint.parent.parent)


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
