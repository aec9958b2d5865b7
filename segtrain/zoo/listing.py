"""Rows of the zoos as a table, and as records."""

from collections.abc import Sequence
from dataclasses import asdict

from segtrain.table.sheet import Cell, Column, Sheet
from segtrain.zoo.entry import Entry
from segtrain.zoo.files import is_here


def listing(rows: Sequence[Entry]) -> Sheet:
    """One row each: what it is of, what was published for it, and whether it is here."""
    named = dict.fromkeys(name for row in rows for name in row.protocols)
    protocols = sorted(named, key=lambda name: name != "single")  # the zoos' usual one first
    columns = (
        Column("name", "name"), Column("system", "system"), Column("dataset", "data set"),
        Column("split", "split"), *(Column(name, name, numeric=True) for name in protocols),
        Column("size", "size", numeric=True), Column("licence", "licence"), Column("here", "here"),
    )  # fmt: skip
    table = []
    for row in rows:
        scores = [score(row, name) for name in protocols]
        table.append([
            Cell(row.weights), Cell(row.system), Cell(row.dataset), Cell(row.split),
            *(Cell(f"{value:.2f}" if value is not None else "-", value) for value in scores),
            Cell(megabytes(row.size), row.size), Cell(row.licence),
            Cell("yes" if is_here(row) else "no"),
        ])  # fmt: skip
    note = ("Scores are the zoos' own, in percent: mIoU of semantic networks, AP of masks of "
            "instances, PQ of panoptic ones. segtrain evaluate weights=<name> measures one, "
            "segtrain zoo check=<names> several.")  # fmt: skip
    return Sheet("zoo", "Published networks", columns, table, [note])


def records(rows: Sequence[Entry]) -> list[dict]:
    """All that is known of each row, as plain values."""
    found = []
    for row in rows:
        protocols = {name: protocol._asdict() for name, protocol in row.protocols.items()}
        found.append(asdict(row) | {"weights": row.weights, "protocols": protocols,
                                    "cached": is_here(row)})  # fmt: skip
    return found


def score(row: Entry, protocol: str) -> float | None:
    """What was published first for a protocol, in percent; None where the zoo has none."""
    known = row.protocols.get(protocol)
    return next(iter(known.published.values())) if known and known.published else None


def megabytes(number: float | None) -> str:
    """Bytes as `274 MB`."""
    return "-" if number is None else f"{number / 1e6:,.0f} MB"
