"""Published networks evaluated here: what that needs, and what came of it beside their figures."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from segtrain.assembly import build_data
from segtrain.configuration.composing import compose_config
from segtrain.plan.jobs import evaluations
from segtrain.prepare.once import is_readable
from segtrain.report.results import title_of
from segtrain.table import wording
from segtrain.table.sheet import Cell, Column, Sheet
from segtrain.table.writing import as_records, markdown_page, print_sheet
from segtrain.writing import write_json, write_text
from segtrain.zoo.entry import Entry
from segtrain.zoo.files import is_here
from segtrain.zoo.listing import megabytes, score

logger = logging.getLogger("segtrain")


def missing_data(rows: Sequence[Entry]) -> dict[str, str]:
    """By rows' `weights`, the command that prepares the data set, where its split is not here."""
    readable: dict[tuple, bool] = {}
    missing = {}
    for row in rows:
        overrides = next(iter(row.protocols.values())).inference
        chosen = (f"dataset={row.dataset}", *(o for o in overrides if o.startswith("dataset.")))
        if (chosen, row.split) not in readable:
            readable[chosen, row.split] = is_readable(build_data(compose_config(chosen)), row.split)
        if not readable[chosen, row.split]:
            missing[row.weights] = f"needs segtrain prepare dataset={row.dataset}"
    return missing


def planned_sheet(rows: Sequence[Entry]) -> Sheet:
    """One row for each evaluation: what is fetched, and whether its data set is here."""
    columns = (Column("name", "published network"), Column("system", "system"),
               Column("dataset", "data set"), Column("published", "published", True),
               Column("fetch", "to fetch", True), Column("remedy", "what to do"))  # fmt: skip
    missing = missing_data(rows)
    table = []
    for row in rows:
        name, to_fetch = row.weights, not is_here(row)
        value = score(row, next(iter(row.protocols)))
        table.append([
            Cell(name), Cell(row.system), Cell(row.dataset),
            Cell("-" if value is None else f"{value:.2f}", value),
            Cell(megabytes(row.size) if to_fetch else "-", row.size if to_fetch else 0),
            Cell(missing.get(name, "").removeprefix("needs ")),
        ])  # fmt: skip
    return Sheet("evaluations", "Evaluations of published networks", columns, table)


def planned(rows: Sequence[Entry]) -> str:
    """How many there are, and what is fetched for them."""
    to_fetch = [row for row in rows if not is_here(row)]
    unknown = sum(row.size is None for row in to_fetch)
    size = wording.gigabytes(sum(row.size or 0 for row in to_fetch))
    more = f", and {unknown} files of unknown size" if unknown else ""
    return f"{len(rows)}, {size} to fetch{more}"


def write_checks(rows: Sequence[Entry], folder: Path, outputs: Sequence[Path]) -> None:
    """Prints what came of the evaluations, and writes it.

    Args:
        rows: of the zoos.
        folder: with one folder for each evaluation (see `evaluations`).
        outputs: .md or .json files.
    """
    sheet = checked_sheet(rows, folder)
    print_sheet(sheet)
    for path in outputs:
        if path.suffix == ".md":
            write_text(path, markdown_page([sheet]))
        else:
            write_json(path, as_records(sheet))
        logger.info("written     %s", path)


def checked_sheet(rows: Sequence[Entry], folder: Path) -> Sheet:
    """One row for each figure of each evaluation that is done."""
    columns = (Column("name", "published network"), Column("dataset", "data set"),
               Column("split", "split"), Column("protocol", "protocol"),
               Column("metric", "metric"), Column("published", "published", True),
               Column("measured", "measured", True), Column("difference", "difference", True),
               Column("unlike", "not as published", wraps=True))  # fmt: skip
    table = []
    for row, job in zip(rows, evaluations(rows), strict=True):
        file = folder / job.name / "results.json"
        if not file.is_file():
            continue
        results = json.loads(file.read_text())
        zoo = results["zoo"]
        for metric, value in zoo["published"].items():
            measured = 100 * results["metrics"][metric]
            table.append([
                Cell(row.weights), Cell(results["dataset"]), Cell(results["split"]),
                Cell(zoo["protocol"]), Cell(title_of(metric)), Cell(f"{value:.2f}", value),
                Cell(f"{measured:.2f}", measured),
                Cell(wording.difference(measured - value), measured - value),
                Cell("; ".join(zoo["unlike"])),
            ])  # fmt: skip
    note = "In percent; published by the zoo, measured here from its file, which was trained there."
    return Sheet("zoo", "Published and measured", columns, table, [note])
