"""The published layout as sheets: the overview, and one row for each result behind it."""

from collections.abc import Sequence

from segtrain.table import wording
from segtrain.table.groups import Group
from segtrain.table.published import Benchmark, Filled
from segtrain.table.runs import Fault
from segtrain.table.sheet import Cell, Column, Sheet

LEGEND = (
    "A cell: the paper's figure in percent [note]; ours, the mean ± the sample standard deviation "
    "over n seeds; ours less the paper's in points, in brackets where the two are not comparable; "
    "our split and protocol. Below, a published network of the system that was evaluated here."
)
EVALUATED = "evaluated, not trained here"
CELL_COLUMNS = (
    Column("system", "system"),
    Column("benchmark", "benchmark"),
    Column("paper", "paper", numeric=True),
    Column("paper_split", "paper's split"),
    Column("paper_protocol", "paper's protocol"),
    Column("ours", "ours", numeric=True),
    Column("seeds", "seeds", numeric=True),
    Column("difference", "difference", numeric=True),
    Column("split", "split"),
    Column("protocol", "protocol"),
    Column("experiment", "experiment"),
    Column("shown", "shown"),
    Column("comparable", "comparable"),
    Column("note", "note"),
)
FAULT_COLUMNS = (
    Column("folder", "folder", wraps=True),
    Column("status", "status"),
    Column("reason", "reason", wraps=True),
)


def overview(benchmarks: dict[str, Benchmark], cells: Sequence[Filled], rest: list[str]) -> Sheet:
    """One row a system, one column a benchmark, and the notes that its cells refer to.

    Args:
        benchmarks: the columns.
        cells: the table's, in reading order.
        rest: more notes.
    """
    columns = (Column("system", "system"), *(
        Column(key, benchmark.title, wraps=True) for key, benchmark in benchmarks.items()
    ))  # fmt: skip
    rows: dict[str, list[Cell]] = {}
    footnotes: list[str] = []
    for filled in cells:
        paper = filled.published
        row = rows.setdefault(paper.system, [Cell(paper.system), *(Cell("") for _ in benchmarks)])
        mark = ""
        if text := footnote(filled):
            footnotes.append(f"[{len(footnotes) + 1}] {paper.system}, "
                             f"{benchmarks[paper.benchmark].title}: {text}")  # fmt: skip
            mark = f" [{len(footnotes)}]"
        position = 1 + list(benchmarks).index(paper.benchmark)
        row[position] = Cell(f"{paper.value:.1f}{mark}{ours(filled)}", paper.value)
    title = "Results: papers and ours"
    return Sheet("table", title, columns, list(rows.values()), [LEGEND, *footnotes, *rest])


def ours(filled: Filled) -> str:
    """The lines of a cell below the paper's figure."""
    lines = []
    if filled.groups:
        group = filled.groups[0]
        points = shown_difference(filled, 0)
        lines = [wording.score(group), f"{points}, n={len(group.runs)}", how(group)]
    if filled.evaluated:
        lines.append(f"{wording.score(filled.evaluated[0])}, {EVALUATED}")
    return "".join(f"\n{line}" for line in lines)


def how(group: Group) -> str:
    """The split and protocol that a group was measured by."""
    return f"{group.results['split']}, {wording.protocol(group.results['protocol'])}"


def evaluated(group: Group) -> str:
    """What was published for a network that was only evaluated here, as a sentence."""
    zoo = group.results["zoo"]
    value = zoo["published"].get(group.metric)
    if value is None:
        figure = "no figure was published"
    else:
        points = wording.difference(100 * group.mean - value)
        figure = f"published {value:.2f}, difference {points}"
    unlike = f" ({'; '.join(zoo['unlike'])})" if zoo["unlike"] else ""
    return (f"{EVALUATED.capitalize()}: {wording.score(group)}, {zoo['zoo']}/{zoo['name']}, "
            f"{how(group)}; {figure}{unlike}.")  # fmt: skip


def shown_difference(filled: Filled, position: int) -> str:
    """Of one of the groups, in points; in brackets where it is not one between like and like."""
    text = wording.difference(filled.points(position))
    unlike = filled.unlike[position] or filled.changed[position]
    return text if filled.published.comparable and not unlike else f"({text})"


def footnote(filled: Filled) -> str:
    """Why a cell's two figures are not comparable, and what else was measured; may be empty."""
    parts = [filled.published.note] if filled.published.note else []
    if filled.groups:
        parts += reasons(filled, 0)
    for position, group in enumerate(filled.groups[1:], 1):
        also = f"Also: {wording.score(group)}, {group.results['experiment']}, {how(group)}"
        changed = filled.changed[position]
        suffix = f" ({'; '.join(changed)})" if changed else ""
        parts.append(f"{also}, n={len(group.runs)}{suffix}.")
    return " ".join([*parts, *map(evaluated, filled.evaluated)])


def reasons(filled: Filled, position: int) -> list[str]:
    """In what a group differs from the paper's way and from its experiment, as sentences."""
    found = []
    if unlike := filled.unlike[position]:
        found.append(f"Ours: {'; '.join(unlike)}.")
    if changed := filled.changed[position]:
        found.append(f"Not the recipe: {'; '.join(changed)}.")
    return found


def all_cells(benchmarks: dict[str, Benchmark], cells: Sequence[Filled]) -> Sheet:
    """One row for each published figure and each group that belongs to it."""
    rows = []
    for filled in cells:
        paper = filled.published
        known = [paper.system, benchmarks[paper.benchmark].title, f"{paper.value:.1f}",
                 paper.split, paper.protocol]  # fmt: skip
        note = [paper.note] if paper.note else []
        if not filled.groups:
            rows.append([*known, *[""] * 8, " ".join(note)])
        for position, group in enumerate(filled.groups):
            points = shown_difference(filled, position)
            row = [*known, wording.score(group), str(len(group.runs)), points,
                   group.results["split"], wording.protocol(group.results["protocol"]),
                   group.results["experiment"], "no" if position else "yes",
                   "no" if points.startswith("(") else "yes",
                   " ".join([*note, *reasons(filled, position)])]  # fmt: skip
            rows.append(row)
        for group in filled.evaluated:
            rows.append([*known, wording.score(group), "", "", group.results["split"],
                         wording.protocol(group.results["protocol"]), group.results["experiment"],
                         "no", "no", evaluated(group)])  # fmt: skip
    return Sheet("cells", "Cells", CELL_COLUMNS, [[Cell(text) for text in row] for row in rows])


def left_over(cells: Sequence[Filled], groups: Sequence[Group]) -> list[str]:
    """Notes on groups that fill no cell."""
    used = {id(group) for filled in cells for group in (*filled.groups, *filled.evaluated)}
    on_val = {name for filled in cells for name in filled.published.trained_on_val}
    lines, others = [], 0
    for group in groups:
        name = group.results["experiment"]
        if id(group) in used:
            continue
        if name in on_val:
            split = group.results["split"]
            lines.append(f"{name}: {wording.score(group)} on {split} means nothing, for {split} is "
                         "part of its training; it is for the test server.")  # fmt: skip
        else:
            others += 1
    if others:
        lines.append(f"{others} more results belong to no cell; layout=runs shows all.")
    return lines


def fault_sheet(faults: Sequence[Fault]) -> Sheet:
    """The run folders without usable results."""
    rows = [[Cell(str(f.folder)), Cell(f.kind), Cell(f.reason)] for f in faults]
    return Sheet("faults", "Not counted", FAULT_COLUMNS, rows)
