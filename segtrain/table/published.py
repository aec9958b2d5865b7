"""The results-summary table in its published layout: what papers state beside what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from segtrain.errors import UserError
from segtrain.report.results import Results
from segtrain.table.groups import Group


class Benchmark(NamedTuple):
    """A column: its heading, the metric, and the data sets that count as it."""

    title: str
    metric: str
    datasets: list[str]


@dataclass(frozen=True)
class Published:
    """One published figure; see `conf/published.yaml`, whose keys these are.

    Args:
        system: the row.
        benchmark: the column's key.
        value: percent.
    """

    system: str
    benchmark: str
    value: float
    split: str
    protocol: str
    source: str
    experiments: list[str]
    like: Results
    comparable: bool
    note: str | None = None
    trained_on_val: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ()


@dataclass(frozen=True)
class Filled:
    """A published figure, and the groups of runs that may stand beside it.

    Args:
        published: the paper's.
        groups: the closest to the paper first; only that one is shown in the table.
        unlike: for each group, in what it was measured otherwise than the paper's.
        changed: for each group, in what it was trained otherwise than its experiment says.
        evaluated: published networks of the system that were only evaluated here, the best first.
    """

    published: Published
    groups: list[Group]
    unlike: list[list[str]]
    changed: list[list[str]]
    evaluated: list[Group]

    @property
    def comparable(self) -> bool:
        """Whether the shown difference is one between like and like."""
        is_like = not self.groups or not (self.unlike[0] or self.changed[0])
        return self.published.comparable and is_like

    def points(self, position: int = 0) -> float:
        """Percentage points of a group above the paper's figure."""
        return 100 * self.groups[position].mean - self.published.value


def read_published(path: Path) -> tuple[dict[str, Benchmark], list[Published]]:
    """Columns and figures of the table, in their order.

    Raises:
        UserError: the file lacks something, or has what is not known.
    """
    content = yaml.safe_load(path.read_text())
    try:
        benchmarks = {key: Benchmark(**node) for key, node in content["benchmarks"].items()}
        figures = [
            Published(system, key, **cell)
            for system, cells in content["systems"].items()
            for key, cell in cells.items()
        ]
        for figure in figures:
            benchmarks[figure.benchmark]
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: {error}; its first lines say what it holds") from None
    return benchmarks, figures


def fill(
    published: Published,
    benchmark: Benchmark,
    groups: Sequence[Group],
    changes: dict[int, list[str]],
) -> Filled:
    """The groups that belong to a figure, the closest first.

    Args:
        published: the figure.
        benchmark: its column.
        groups: all there are.
        changes: by `id` of a group, its differences from its experiment.
    """
    fitting = [
        group
        for group in groups
        if group.results["experiment"] in published.experiments
        and group.results["dataset"] in benchmark.datasets
        and group.metric == benchmark.metric
    ]

    def closeness(group: Group) -> tuple:
        return (
            len(changes.get(id(group), [])) > 0,
            len(differences(published.like, group.results)),
            published.experiments.index(group.results["experiment"]),
            -len(group.runs),
            -group.mean,
        )

    fitting.sort(key=closeness)
    unlike = [differences(published.like, group.results) for group in fitting]
    changed = [changes.get(id(group), []) for group in fitting]
    evaluated = [
        group
        for group in groups
        if (group.results.get("zoo") or {}).get("system") == published.system
        and group.results["dataset"] in benchmark.datasets
        and group.metric == benchmark.metric
    ]
    evaluated.sort(key=lambda group: -group.mean)
    return Filled(published, fitting, unlike, changed, evaluated)


def differences(like: Results, results: Results) -> list[str]:
    """In what a result was not measured as `like` says, as `split val, not test`."""
    protocol = results["protocol"]
    found = {
        **protocol,
        "dataset": results["dataset"],
        "split": results["split"],
        "single_scale": len(protocol.get("scales") or [1.0]) == 1,
    }
    words = {
        ("single_scale", True): "one scale, not several",
        ("single_scale", False): "several scales, not one",
        ("flip", True): "mirrored too",
        ("flip", False): "not mirrored",
        ("crf", True): "with CRF",
        ("crf", False): "without CRF",
    }
    unlike = []
    for key, wanted in like.items():
        value = found.get(key)
        if value != wanted:
            plain = f"{key.replace('_', ' ')} {value}, not {wanted}"
            unlike.append(words.get((key, value), plain) if isinstance(value, bool) else plain)
    if found.get("ensemble"):
        unlike.append(f"ensemble of {found['ensemble']}")
    return unlike
