"""What verification found, as a table and as JSON."""

import sys
from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text

from segtrain.label_set import LabelSet
from segtrain.prepare.verify import SplitReport
from segtrain.text import console
from segtrain.writing import write_json

MOST_CLASSES = 64  # in the printed table; the JSON has all


def print_summary(reports: list[SplitReport], labels: LabelSet, name: str) -> None:
    """One row a split, then the share of each class in each split."""
    terminal = console(width=None if sys.stdout.isatty() else 120)
    table = Table(title=f"{name}: {labels.num_classes} classes", title_justify="left")
    for column in ("split", "images", "expected", "width x height", "void %", "classes", "faults"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for report in reports:
        if report.absent:
            table.add_row(report.split, "absent", _text(report.expected), "", "", "", "")
            continue
        total = max(1, int(report.counts.sum()))
        table.add_row(
            report.split,
            f"{report.images:,}",
            _text(report.expected),
            _sizes(report),
            f"{100 * report.counts[-1] / total:.2f}",
            f"{np.count_nonzero(report.counts[:-1])} of {labels.num_classes}",
            Text(str(len(report.faults)), "red") if report.faults else "0",
        )
    terminal.print(table)
    present = [report for report in reports if report.counts.any()]
    if present and labels.num_classes <= MOST_CLASSES:
        terminal.print(_class_table(present, labels))


def write_summary(path: Path, reports: list[SplitReport], labels: LabelSet) -> None:
    """The same and all faults, machine-readable."""
    content = {
        report.split: {
            "images": report.images,
            "expected": report.expected,
            "absent": report.absent,
            "smallest": report.smallest,
            "largest": report.largest,
            "turned_upright": report.turned,
            "pixels_or_instances": dict(
                zip(labels.names, report.counts[:-1].tolist(), strict=True)
            ),
            "void_or_crowds": int(report.counts[-1]),
            "images_with": dict(zip(labels.names, report.images_with.tolist(), strict=True)),
            "faults": report.faults,
            "left_out": report.notes,
        }
        for report in reports
    }
    write_json(path, content)


def _class_table(reports: list[SplitReport], labels: LabelSet) -> Table:
    table = Table(title="share of the labels in %, and images with the class", title_justify="left")
    table.add_column("class")
    for report in reports:
        table.add_column(report.split, justify="right")
    for train_id, name in enumerate(labels.names):
        cells = []
        for report in reports:
            share = report.counts[train_id] / max(1, report.counts[:-1].sum())
            images = report.images_with[train_id]
            cells.append(f"{100 * share:.2f} ({images})" if images else Text("absent", "yellow"))
        table.add_row(f"{train_id} {name}", *cells)
    return table


def _sizes(report: SplitReport) -> str:
    smallest, largest = (f"{size[1]}x{size[0]}" for size in (report.smallest, report.largest))
    return smallest if smallest == largest else f"{smallest} to {largest}"


def _text(expected: int | None) -> str:
    return "-" if expected is None else f"{expected:,}"
