"""Any set of runs side by side: scores, time, size, speed and memory."""

import re
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from segtrain.configuration.messages import nearest
from segtrain.errors import UserError
from segtrain.headlines import TITLES
from segtrain.report.results import EXTRA, PANOPTIC, seconds_to, title_of
from segtrain.table import wording
from segtrain.table.groups import Group
from segtrain.table.sheet import Cell, Column, Sheet
from segtrain.table.telling import Difference, differences


class Measure(NamedTuple):
    """A column, and how it gets its value and text from a group."""

    column: Column
    value: Callable[[Group], float | str | None]
    text: Callable[[Group], str]


def _shared(key: str) -> Callable[[Group], str]:
    return lambda group: str(group.results.get(key, wording.NONE))


def _mean(*path: str) -> Callable[[Group], float | None]:
    def read(results: dict) -> float | None:
        node = results
        for key in path:
            node = node.get(key) if isinstance(node, dict) else None
        return node

    return lambda group: group.average(read)


def _worded(key: str, title: str, words: Callable[[float | None], str], *path: str) -> Measure:
    mean = _mean(*path)
    return Measure(Column(key, title, numeric=True), mean, lambda group: words(mean(group)))


def _time_to(key: str, per_cent: float) -> Measure:
    def value(group: Group) -> float | None:
        seconds = [seconds_to(run.results, per_cent / 100) for run in group.runs]
        return None if None in seconds else statistics.mean(seconds)

    column = Column(key, f"to {per_cent:g} %", numeric=True)
    return Measure(column, value, lambda group: wording.duration(value(group)))


def _named(key: str, title: str) -> Measure:
    return Measure(Column(key, title), _shared(key), _shared(key))


MEASURES = (
    _named("experiment", "experiment"),
    _named("dataset", "data set"),
    _named("split", "split"),
    Measure(
        Column("protocol", "protocol"),
        lambda group: wording.protocol(group.results["protocol"]),
        lambda group: wording.protocol(group.results["protocol"]),
    ),
    Measure(
        Column("metric", "metric"),
        lambda group: TITLES[group.metric],
        lambda group: TITLES[group.metric],
    ),
    Measure(Column("score", "score %", numeric=True), lambda group: group.mean, wording.score),
    Measure(
        Column("seeds", "seeds", numeric=True),
        lambda group: len(group.runs),
        lambda group: str(len(group.runs)),
    ),
    _worded("train_time", "training", wording.duration, "timing", "train_seconds"),
    _worded("images_per_second", "images/s", wording.large, "timing", "train_images_per_second"),
    _worded("parameters", "params", wording.millions, "parameters"),
    _worded("host_memory", "host mem", wording.gigabytes, "peak_memory_bytes", "host"),
    _worded("device_memory", "device mem", wording.gigabytes, "peak_memory_bytes", "device"),
    _worded("batch_size", "batch", wording.large, "total_batch_size"),
    _worded("devices", "devices", wording.large, "devices"),
)
EXTRA_MEASURES = tuple(
    _worded(name, f"{title_of(name)} %", wording.percent, "metrics", name)
    for name in (*PANOPTIC, *EXTRA)
)
TOLD = ("experiment", "dataset", "split", "protocol", "metric", "batch_size", "devices")
SECONDS_TO = re.compile(r"seconds_to_(\d+(?:\.\d+)?)")  # per cent of the validation's score
DEFAULT_ORDER = ("dataset", "split", "metric", "-score", "experiment")


def compare(groups: Sequence[Group], sort: str | None) -> Sheet:
    """One row for each group.

    Args:
        groups: what is compared.
        sort: a column's key or a metric's name, with `-` in front for the largest first; None for
            data set, split, metric and the best score first. `seconds_to_60` is the time on the
            training's clock until a validation first scored 60 %, and gets a column.

    Raises:
        UserError: there is no such column or metric.
    """
    asked = SECONDS_TO.fullmatch((sort or "").removeprefix("-"))
    times = [_time_to(asked[0], float(asked[1]))] if asked else []
    measured = {name for group in groups for name in group.results["metrics"]}
    extra = [measure for measure in EXTRA_MEASURES if measure.column.key in measured]
    measures = [MEASURES[0], *telling_measures(groups), *MEASURES[1:], *extra, *times]
    ordered = sorted_by(groups, sort, measures)
    rows = [[_cell(measure, group) for measure in measures] for group in ordered]
    columns = tuple(measure.column for measure in measures)
    return Sheet("runs", "Runs", columns, rows, notes(groups))


def telling_measures(groups: Sequence[Group]) -> list[Measure]:
    """Columns of the settings in which groups differ that the other columns do not tell apart."""
    own = [measure for measure in MEASURES if measure.column.key in TOLD]
    looks = [tuple(measure.text(group) for measure in own) for group in groups]
    position = {id(group): number for number, group in enumerate(groups)}

    def measure_of(found: Difference) -> Measure:
        numbers = all(type(value) in (int, float, type(None)) for value in found.values)

        def value(group: Group) -> float | str | None:
            of = found.values[position[id(group)]]
            return of if numbers or of is None else str(of)

        column = Column(found.key, found.title, numeric=numbers, wraps=found.key == "folder")
        return Measure(column, value, lambda group: found.text(position[id(group)]))

    return [measure_of(found) for found in differences(groups, looks)]


def sorted_by(
    groups: Sequence[Group], sort: str | None, measures: Sequence[Measure]
) -> list[Group]:
    """In the order asked for; groups without the value come last."""
    ordered = list(groups)
    for key in reversed(DEFAULT_ORDER if sort is None else (sort,)):
        value = _sort_value(key.removeprefix("-"), groups, measures)
        known = [group for group in ordered if value(group) is not None]
        unknown = [group for group in ordered if value(group) is None]
        known.sort(key=value, reverse=key.startswith("-"))
        ordered = known + unknown
    return ordered


def notes(groups: Sequence[Group]) -> list[str]:
    """How scores are made, and what was not counted."""
    lines = []
    if any(len(group.runs) > 1 for group in groups):
        lines.append("± is the sample standard deviation over seeds; time, speed and memory are "
                     "means over them.")  # fmt: skip
    for group in groups:
        for run in group.repeated:
            seed = run.results["seed"]
            lines.append(f"{run.folder}: seed {seed} was repeated later, which counts instead")
    return lines


def _sort_value(
    key: str, groups: Sequence[Group], measures: Sequence[Measure]
) -> Callable[[Group], float | str | None]:
    for measure in measures:
        if key in (measure.column.key, measure.column.title):
            return measure.value
    metrics = {
        name
        for group in groups
        for name, value in group.results["metrics"].items()
        if isinstance(value, int | float)
    }
    if key in metrics:
        return _mean("metrics", key)
    known = [measure.column.key for measure in measures] + sorted(metrics)
    raise UserError(f"sort={key}: no such column; {nearest(key, known)}")


def _cell(measure: Measure, group: Group) -> Cell:
    value = measure.value(group)
    link = group.runs[0].report if measure.column.key == "experiment" else None
    return Cell(measure.text(group), value if isinstance(value, int | float) else None, link)
