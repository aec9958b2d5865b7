"""The page of Markdown, made for docs/measured.md, of what a journal holds."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.journal import Journal
from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.verdicts import VERDICTS

LATER = ("card", "host", "python", "system", "packages", "command", "device", "tiny", "revision")


def write_table(path: Path, journal: Journal, expected: dict[str, list[str]]) -> None:
    """Writes the page in one step.

    Args:
        path: of the page.
        journal: what was measured.
        expected: names of the cells of each part, where they are known.
    """
    partial = path.with_name(path.name + ".partial")
    partial.write_text(page(journal, expected))
    os.replace(partial, path)


def page(journal: Journal, expected: dict[str, list[str]]) -> str:
    """The page; see `write_table`."""
    cells, machines = journal.cells(), journal.machines()
    blocks = ["## On a GPU" if machines[-1]["device"] == "cuda" else "## On a CPU, tiny",
              *described(machines)]  # fmt: skip
    questions = {part.name: part.question for part in PARTS}
    names = dict.fromkeys([*questions, *expected, *(part for part, _ in cells)])
    several = len({machine["card"] for machine in machines}) > 1
    for part in names:
        own = {name: entry for (of, name), entry in cells.items() if of == part}
        missing = [name for name in expected.get(part, ()) if name not in own]
        if not own and not missing:
            continue
        blocks.append(f"### {part}: {questions.get(part, '')}".rstrip(": "))
        for table in dict.fromkeys(entry["table"] for entry in own.values()):
            rows = {n: e for n, e in own.items() if e["table"] == table}
            blocks += [*([f"{table}:"] if table else []), rows_of(rows, several)]
        blocks += VERDICTS.get(part, lambda found: [])(figures_of(cells))
        if missing:
            blocks.append(f"Not measured yet: {', '.join(missing)}.")
        blocks.append(f"`python -m benchmarks.gpu --only {part} --out FOLDER`")
    return "\n\n".join(blocks) + "\n"


def figures_of(cells: dict[tuple[str, str], dict]) -> dict[tuple[str, str], dict]:
    """The figures of what went well, by part and cell."""
    return {key: e["figures"] for key, e in cells.items() if e["status"] == "ok"}


def described(machines: Sequence[dict]) -> list[str]:
    """Cards, versions and commands, each once."""
    lines = []
    for machine in {machine["card"]: machine for machine in machines}.values():
        details = [f"{key} {value}" for key, value in machine.items() if key not in LATER]
        lines.append(
            f"{machine['card']}; {machine['host']}" + "".join(f"; {d}" for d in details) + "."
        )
    last = machines[-1]
    packages = ", ".join(f"{name} {value}" for name, value in last["packages"].items())
    lines.append(f"Python {last['python']}; {packages}; revision {last['revision'] or 'unknown'}.")
    commands = dict.fromkeys(machine["command"] for machine in machines)
    lines.append("Measured with " + ", ".join(f"`{command}`" for command in commands) + ".")
    return lines


def rows_of(entries: dict[str, dict], with_card: bool) -> str:
    """A table of cells; what they did not find out is said in the place of figures.

    What only few of the cells know stands together in a last column.
    """
    known = [e["figures"] for e in entries.values() if e["figures"]]
    count = Counter(key for figures in known for key in figures)
    columns = [key for key in count if count[key] > len(known) / 3]
    lines = []
    for name, entry in entries.items():
        figures = entry["figures"]
        rest = ", ".join(f"{k} {shown(v)}" for k, v in figures.items() if k not in columns)
        lines.append([name, *(shown(figures[c]) if c in figures else "" for c in columns),
                      "; ".join(filter(None, [rest, note(entry)])),
                      entry.get("card", "") if with_card else ""])  # fmt: skip
    head = ["", *columns, "also", "card"]
    rule = ["---", *(["---:"] * len(columns)), "---", "---"]
    used = [i for i, name in enumerate(head) if i <= len(columns) or any(r[i] for r in lines)]
    return "\n".join(
        "| " + " | ".join(line[i] for i in used) + " |" for line in (head, rule, *lines)
    )


def note(entry: dict) -> str:
    """What became of a cell that is not done as it should be."""
    if entry["status"] == "ok":
        return ""
    reason = str(entry.get("reason") or "").replace("|", "/")
    return f"{entry['status']}: {reason}" if reason else entry["status"]


def shown(value: float | int | str | bool | None) -> str:
    """A figure, at three or four digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    if isinstance(value, float):
        if value == 0 or 0.001 <= abs(value) < 100:
            return f"{value:.3g}"
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1e}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "/")
