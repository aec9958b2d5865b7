"""`table`: the results of any runs, beside the papers' figures or side by side."""

import logging
from collections.abc import Sequence
from pathlib import Path

from segtrain.configuration.composing import compose_config
from segtrain.configuration.folder import conf_dir
from segtrain.configuration.schema import Table
from segtrain.errors import UserError
from segtrain.table.changes import changes
from segtrain.table.comparison import compare
from segtrain.table.groups import Group, group_runs
from segtrain.table.page import html
from segtrain.table.published import Published, fill, read_published
from segtrain.table.runs import find_runs
from segtrain.table.sheet import Sheet
from segtrain.table.summary import all_cells, fault_sheet, left_over, overview
from segtrain.table.writing import comma_separated, markdown_page, print_sheet
from segtrain.writing import write_text

logger = logging.getLogger("segtrain")

ENDINGS = (".md", ".csv", ".html")


def run(config: Table, run_dir: Path) -> None:
    """Prints the table and writes it into the files asked for.

    Raises:
        UserError: there is no such folder, column or form of output.
    """
    outputs = as_paths(config["output"])
    check(outputs)
    show(as_paths(config["runs"]), config["layout"], config["sort"], outputs)


def show(roots: list[Path], layout: str, sort: str | None, outputs: list[Path]) -> None:
    """Prints the table of the runs below `roots`, and writes `outputs`."""
    runs, faults = find_runs(roots)
    groups = group_runs(runs)
    compared, unusable = compare(groups, sort), fault_sheet(faults)
    sheets = [compared]
    listed = compared
    if layout == "published":
        summary, listed = published_sheets(groups)
        sheets = [summary]
    sheets += [unusable] if faults else []
    for sheet in sheets:
        print_sheet(sheet)
    logger.info("runs        %d results in %d groups, %d folders not counted", len(runs),
                len(groups), len(faults))  # fmt: skip
    for path in outputs:
        if path.suffix == ".md":
            write_text(path, markdown_page(sheets))
        elif path.suffix == ".csv":
            write_text(path, comma_separated(listed, unusable))
        else:
            more = [compared] if layout == "published" and groups else []
            pages = [sheets[0], *more, *sheets[1:]]
            write_text(path, html(pages, groups, path.parent))
        logger.info("written     %s", path)


def published_sheets(groups: Sequence[Group]) -> tuple[Sheet, Sheet]:
    """The overview, and one row for each result behind it."""
    benchmarks, figures = read_published(conf_dir() / "published.yaml")
    changed = recipe_changes(groups, figures)
    cells = [fill(figure, benchmarks[figure.benchmark], groups, changed) for figure in figures]
    rest = left_over(cells, groups)
    return overview(benchmarks, cells, rest), all_cells(benchmarks, cells)


def recipe_changes(groups: Sequence[Group], figures: Sequence[Published]) -> dict[int, list[str]]:
    """By `id` of a group, in what it was trained otherwise than its experiment says."""
    named = {name for figure in figures for name in figure.experiments}
    recipes: dict[str, dict] = {}
    found = {}
    for group in groups:
        name = group.results["experiment"]
        if name in named and group.config is not None:
            if name not in recipes:
                recipes[name] = compose_config([f"experiment={name}"])
            found[id(group)] = changes(group.config, recipes[name])
    return found


def as_paths(given: str | list[str] | None) -> list[Path]:
    """One path or several, as the command line gives them."""
    return [Path(path) for path in ([given] if isinstance(given, str) else given or [])]


def check(outputs: list[Path]) -> None:
    """Refuses what cannot be written before anything is read."""
    for path in outputs:
        if path.suffix not in ENDINGS:
            raise UserError(f"output={path}: expected a name that ends in {', '.join(ENDINGS)}")
