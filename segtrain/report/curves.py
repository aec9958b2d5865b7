"""The curves of a run over its steps, from what its logger wrote."""

import contextlib
import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segtrain.report.charts import Series, line_chart, number, percent
from segtrain.report.page import columns
from segtrain.report.results import EXTRA, title_of

POINTS = 300  # of a curve that is shown
VALIDATED = ("pq", "pq_things", "pq_stuff", "miou", "mean_accuracy", "pixel_accuracy", *EXTRA,
             "ap", "ap50", "ap75", "ar1000", "ar100", "ar10")  # fmt: skip


class Curve(NamedTuple):
    """One logged value."""

    steps: np.ndarray  # (n,) ascending
    values: np.ndarray  # (n,)


def read_curves(run_dir: Path) -> dict[str, Curve]:
    """The scalars of a run folder by their tags; none where it has no log."""
    if any((run_dir / "tensorboard").glob("events.out.tfevents.*")):
        return _from_tensorboard(run_dir / "tensorboard")
    if (run_dir / "csv" / "metrics.csv").is_file():
        return _from_csv(run_dir / "csv" / "metrics.csv")
    return {}


def curve_charts(curves: dict[str, Curve]) -> str:
    """HTML: loss, validation, learning rate and speed; empty where there is nothing of them."""
    terms = _tagged(curves, "train/loss_", lambda name: True)
    total = _tagged(curves, "train/", lambda name: name == "loss")
    losses = total | (terms if len(terms) > 1 else {})  # a single term is the total
    validated = _tagged(curves, "val/", lambda name: name in VALIDATED)
    validated = {name: validated[name] for name in VALIDATED if name in validated}
    named = {title_of(name): curve for name, curve in validated.items()}
    rates = _alike_joined(_tagged(curves, "lr/", lambda name: True))
    speed = _tagged(curves, "", lambda name: name == "images_per_second")
    parts = [
        _chart(losses, "training loss", number, averaged=True),
        _chart(named, "validation", percent, from_zero=True),
        _chart(rates, "learning rate", number, from_zero=True),
        _chart(speed, "training speed, images/s", number, averaged=True, from_zero=True),
    ]
    parts = [part for part in parts if part]
    return columns(*parts) if parts else ""


def averaged_down(curve: Curve, points: int) -> Curve:
    """A long curve as the means of equally many neighbours; a short one as it is."""
    if len(curve.steps) <= points:
        return curve
    groups = np.array_split(np.arange(len(curve.steps)), points)
    return Curve(
        np.array([curve.steps[group[-1]] for group in groups]),
        np.array([curve.values[group].mean() for group in groups]),
    )


def picked(curve: Curve, points: int) -> Curve:
    """Some values of a long curve, the first and the last among them; a short one as it is."""
    if len(curve.steps) <= points:
        return curve
    chosen = np.linspace(0, len(curve.steps) - 1, points).round().astype(int)
    return Curve(curve.steps[chosen], curve.values[chosen])


def _tagged(
    curves: dict[str, Curve], prefix: str, wanted: Callable[[str], bool]
) -> dict[str, Curve]:
    """The curves whose tags begin so and whose rest is wanted, by that rest."""
    rest = {tag.removeprefix(prefix): curve for tag, curve in curves.items()
            if tag.startswith(prefix)}  # fmt: skip
    return {name: curve for name, curve in rest.items() if wanted(name)}


def _chart(
    curves: dict[str, Curve],
    title: str,
    form: Callable[[float], str],
    averaged: bool = False,
    from_zero: bool = False,
) -> str:
    shown = {name: curve for name, curve in curves.items() if np.isfinite(curve.values).any()}
    if not shown:
        return ""
    longest = max(len(curve.steps) for curve in shown.values())
    if averaged and longest > POINTS:
        title += f" (means of {longest / POINTS:.0f} logged values)"
    reduce = averaged_down if averaged else picked
    series = [Series(name, *reduce(finite(curve), POINTS)) for name, curve in shown.items()]
    return line_chart(series, title, "step", form, from_zero=from_zero)


def _alike_joined(curves: dict[str, Curve]) -> dict[str, Curve]:
    """Curves that are the same as one, with all their names."""
    joined: dict[bytes, tuple[list[str], Curve]] = {}
    for name, curve in curves.items():
        content = curve.steps.tobytes() + curve.values.tobytes()
        joined.setdefault(content, ([], curve))[0].append(name)
    return {", ".join(names): curve for names, curve in joined.values()}


def finite(curve: Curve) -> Curve:
    """The curve without values that are not finite."""
    kept = np.isfinite(curve.values)
    return Curve(curve.steps[kept], curve.values[kept])


def _from_tensorboard(folder: Path) -> dict[str, Curve]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # Everything but scalars can be large and is not wanted; 0 would be all of it.
    sizes = {"images": 1, "tensors": 1, "histograms": 1, "compressedHistograms": 1, "audio": 1}
    events = EventAccumulator(str(folder), size_guidance={**sizes, "scalars": 0})
    events.Reload()
    return {
        tag: _curve([event.step for event in values], [event.value for event in values])
        for tag in events.Tags()["scalars"]
        if (values := events.Scalars(tag))
    }


def _from_csv(path: Path) -> dict[str, Curve]:
    """As a killed run or a broken copy may have cut the table, what is no number is left out."""
    points: dict[str, list[tuple[int, float]]] = {}
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(file):
            for tag, value in row.items():
                if tag not in ("step", "epoch", None) and value:
                    with contextlib.suppress(ValueError, TypeError):
                        point = int(float(row.get("step"))), float(value)
                        points.setdefault(tag, []).append(point)
    return {tag: _curve(*zip(*found, strict=True)) for tag, found in points.items()}


def _curve(steps: Sequence[int], values: Sequence[float]) -> Curve:
    """By step; of a step that was logged again, as after a resumption, the last value counts."""
    latest = dict(sorted(dict(zip(steps, values, strict=True)).items()))
    return Curve(np.array(list(latest)), np.array(list(latest.values()), float))
