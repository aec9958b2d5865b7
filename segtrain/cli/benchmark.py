"""`benchmark`: measures one part of the pipeline, prints a table, writes `benchmark.json`."""

import logging
from pathlib import Path

from rich.table import Table

from segtrain.assembly import make
from segtrain.cli import launch
from segtrain.configuration.schema import Benchmark
from segtrain.report.results import environment
from segtrain.text import console
from segtrain.writing import write_json

logger = logging.getLogger("segtrain")


def run(config: Benchmark, run_dir: Path) -> None:
    """Runs the measurement named by `config["measure"]`."""
    rows = make(config["measure"])(config)
    if launch.rank() > 0:
        return
    title = config["measure"]["_target_"].rpartition(".")[2]
    upright = len(rows) == 1
    table = Table(title=title, title_justify="left", show_header=not upright)
    for position, name in enumerate(("", "") if upright else rows[0]):
        table.add_column(name, justify="left" if upright and position == 0 else "right")
    for line in rows[0].items() if upright else (row.values() for row in rows):
        table.add_row(*(_format(value) for value in line))
    console(soft_wrap=True).print(table)
    content = {"rows": rows, "config": config, **environment()}
    write_json(run_dir / "benchmark.json", content)
    logger.info("results     %s", run_dir / "benchmark.json")


def _format(value: float | str) -> str:
    if isinstance(value, float):
        return f"{value:.2e}" if 0 < abs(value) < 0.01 else f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
