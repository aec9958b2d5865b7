"""Sheets as one HTML page, with links to the runs' reports and accuracy against speed."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from segtrain.headlines import TITLES
from segtrain.report import page
from segtrain.report.charts import Point, Series, line_chart, percent, scatter_chart
from segtrain.table import wording
from segtrain.table.groups import Group, finished
from segtrain.table.sheet import Cell, Column, Sheet

SORTABLE = ("runs", "seeds", "faults")
LOGARITHMIC = 5  # times the slowest that the fastest must be for a logarithmic axis


def html(sheets: Sequence[Sheet], groups: Sequence[Group], beside: Path) -> str:
    """The page.

    Args:
        sheets: one table each.
        groups: what the charts show.
        beside: folder of the page, to which links are relative.
    """
    found = sum(len(group.runs) for group in groups)
    subtitle = f"{found} results, {len(groups)} recipes and protocols"
    parts = [as_section(sheet, beside) for sheet in sheets]
    own = [charts(groups, beside), learning(groups)]
    own += [as_section(single_runs(groups), beside)] if groups else []
    end = len(sheets) - (sheets[-1].name == "faults")
    return page.page("Results", subtitle, "".join([*parts[:end], *own, *parts[end:]]))


def as_section(sheet: Sheet, beside: Path) -> str:
    """One sheet with its notes."""
    columns = [page.Column(column.title, column.numeric) for column in sheet.columns]
    rows = [[_cell(cell, beside) for cell in row] for row in sheet.rows]
    table = page.table(columns, rows, sortable=sheet.name in SORTABLE)
    return page.section(sheet.title, table + "".join(page.paragraph(n) for n in sheet.notes))


def single_runs(groups: Sequence[Group]) -> Sheet:
    """One row a seed, with a link to its report."""
    columns = (Column("experiment", "experiment"), Column("seed", "seed", True),
               Column("data", "data set"), Column("protocol", "protocol"),
               Column("score", "score %", True), Column("finished", "finished"),
               Column("folder", "folder"))  # fmt: skip
    rows = []
    for group in groups:
        for run in group.runs:
            of = run.results
            rows.append([
                Cell(of["experiment"], link=run.report), Cell(str(of["seed"]), of["seed"]),
                Cell(f"{of['dataset']} {of['split']}"), Cell(wording.protocol(of["protocol"])),
                Cell(wording.percent(run.score), run.score), Cell(finished(run)),
                Cell(str(run.folder)),
            ])  # fmt: skip
    linked = any(run.report for group in groups for run in group.runs)
    notes = ["An experiment's name leads to the report of its run."] if linked else []
    return Sheet("seeds", "Single runs", columns, rows, notes)


def charts(groups: Sequence[Group], beside: Path) -> str:
    """Accuracy against training speed, a chart for each data set, split and metric."""
    points: dict[tuple[str, str, str], list[Point]] = defaultdict(list)
    for group in groups:
        speed = group.average(lambda results: results["timing"].get("train_images_per_second"))
        if not speed:
            continue
        of = group.results
        note = f"{wording.score(group)} %, {wording.protocol(of['protocol'])}"
        report = group.runs[0].report
        points[of["dataset"], of["split"], group.metric].append(
            Point(
                speed, 100 * group.mean, of["experiment"], of["architecture"],
                None if report is None else relative(report, beside), note,
            )
        )  # fmt: skip
    drawn = [
        scatter_chart(
            of_task, f"{dataset} {split}: {TITLES[metric]} against training speed",
            "images/s in training", f"{TITLES[metric]} %", log_x=differ(of_task),
        )
        for (dataset, split, metric), of_task in points.items()
        if len(of_task) > 1
    ]  # fmt: skip
    if not drawn:
        return ""
    intro = "Speed as measured in the trainings; compare within one machine only."
    return page.section("Accuracy against speed", "".join(drawn), intro)


def learning(groups: Sequence[Group]) -> str:
    """Validation scores over the training's clock, a chart for each data set and metric."""
    lines: dict[tuple[str, str], list[Series]] = defaultdict(list)
    for group in groups:
        for run in group.runs:
            made = run.results["timing"].get("validations") or ()
            if len(made) > 1:
                name = f"{run.results['experiment']} {run.folder.name}"
                minutes = [one["seconds"] / 60 for one in made]
                scores = [one["score"] for one in made]
                lines[run.results["dataset"], run.metric].append(Series(name, minutes, scores))
    drawn = [
        line_chart(of_task, f"{dataset}: validation {TITLES[metric]}",
                   "minutes of training", percent, from_zero=True)
        for (dataset, metric), of_task in lines.items()
    ]  # fmt: skip
    if not drawn:
        return ""
    intro = "Time of the training's steps, validations left out; compare within one machine only."
    return page.section("Accuracy against time", "".join(drawn), intro)


def differ(points: Sequence[Point]) -> bool:
    """Whether speeds differ by so much that only a logarithmic axis shows them."""
    speeds = [point.x for point in points]
    return max(speeds) > LOGARITHMIC * min(speeds)


def relative(target: Path, beside: Path) -> str:
    """Address of a file as seen from a page in a folder."""
    return quote(Path(os.path.relpath(target.resolve(), beside.resolve())).as_posix())


def _cell(cell: Cell, beside: Path) -> page.Cell:
    href = None if cell.link is None else relative(cell.link, beside)
    return page.Cell(cell.text, cell.value, href)
