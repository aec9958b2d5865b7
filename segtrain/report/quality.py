"""Panoptic, segmentation and recognition quality on an HTML page, things and stuff apart."""

from segtrain.report.charts import Bar, bar_chart
from segtrain.report.page import Cell, Column, columns, paragraph, table
from segtrain.report.results import title_of

QUALITIES = ("pq", "sq", "rq")
PARTS = {"": "all", "_things": "things", "_stuff": "stuff"}


def panoptic_classes(results: dict) -> str:
    """HTML: the means, and below them each class's figures.

    Args:
        results: content of `results.json`, of a panoptic run.
    """
    metrics, things = results["metrics"], set(results["things"])
    heads = [Column("classes"), *(Column(f"{title_of(n)} %", numeric=True) for n in QUALITIES)]
    means = [
        [title, *(percent_cell(metrics[f"{name}{part}"]) for name in QUALITIES)]
        for part, title in PARTS.items()
    ]
    names = list(metrics["per_class_pq"])
    groups = {"Things": [name for name in names if name in things],
              "Stuff": [name for name in names if name not in things]}  # fmt: skip
    parts = [_group(title, own, metrics) for title, own in groups.items() if own]
    return table(heads, means, "Means over classes", sortable=False) + columns(*parts)


def _group(title: str, names: list[str], metrics: dict) -> str:
    """Bars of PQ and a table of all figures, of some classes."""
    figures = [*QUALITIES, "iou"]
    per_class = {name: [metrics[f"per_class_{figure}"][name] for figure in figures]
                 for name in names}  # fmt: skip
    present = {name: own for name, own in per_class.items() if own[0] is not None}
    present = dict(sorted(present.items(), key=lambda entry: -entry[1][0]))
    bars = [Bar(name, own[0], f"{100 * own[0]:.2f} %") for name, own in present.items()]
    heads = [Column("class"), *(Column(f"{title_of(n)} %", numeric=True) for n in figures)]
    rows = [[name, *map(percent_cell, own)] for name, own in present.items()]
    absent = [name for name in names if name not in present]
    left_out = f"Absent, left out of the means: {', '.join(absent)}."
    return (
        f"<h3>{title}</h3>"
        + (bar_chart(bars, f"PQ of {title.lower()} by class") if bars else "")
        + (table(heads, rows, f"{title} by class") if rows else "")
        + (paragraph(left_out, muted=True) if absent else "")
    )


def percent_cell(value: float | None) -> Cell:
    """A fraction in percent, as in tables."""
    return Cell("–") if value is None else Cell(f"{100 * value:.2f}", value)
