"""Sheets on the terminal, as Markdown and as CSV."""

import csv
import io
import os
import sys
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from segtrain.table.sheet import Sheet
from segtrain.text import console, markdown, visible

PIPED_WIDTH = 120  # characters to which texts are wrapped where the output is no terminal
NARROWEST = 13  # characters of a column whose texts are wrapped
GAP = 2  # characters between columns


def print_sheet(sheet: Sheet) -> None:
    """The sheet on the terminal, its notes below.

    Columns that the terminal is too narrow for follow in a second table; a pipe takes any width.
    """
    widths = [column_width(sheet, position) for position in range(len(sheet.columns))]
    needed = sum(widths) + GAP * (len(widths) + 1)
    is_known = sys.stdout.isatty() or os.environ.get("COLUMNS")
    terminal = console(width=None if is_known else max(PIPED_WIDTH, needed), highlight=False)
    parts = split_columns(widths, terminal.width)
    for number, positions in enumerate(parts):
        title = sheet.title if number == 0 else f"{sheet.title}, further columns"
        terminal.print(rich_table(sheet, positions, title, numbered=len(parts) > 1))
    for note in sheet.notes:
        terminal.print(Text(visible(note)))
    if sheet.notes:
        terminal.print()


def column_width(sheet: Sheet, position: int) -> int:
    """Characters that a column needs; little where it may be wrapped."""
    texts = [sheet.columns[position].title, *(row[position].text for row in sheet.rows)]
    widest = max(len(line) for text in texts for line in text.split("\n"))
    return min(widest, NARROWEST) if sheet.columns[position].wraps else widest


def split_columns(widths: Sequence[int], width: int) -> list[list[int]]:
    """Positions of the columns of each table; every one has the first column."""
    number = 2 + GAP
    if sum(widths) + GAP * (len(widths) + 1) <= width:
        return [list(range(len(widths)))]
    parts, free = [], 0
    for position, needed in enumerate(widths[1:], 1):
        if not parts or needed + GAP > free:
            parts.append([0])
            free = width - widths[0] - 2 * GAP - number
        parts[-1].append(position)
        free -= needed + GAP
    return parts


def rich_table(sheet: Sheet, positions: Sequence[int], title: str, numbered: bool) -> Table:
    """Some of a sheet's columns; `numbered` rows can be followed from table to table."""
    has_lines = any("\n" in cell.text for row in sheet.rows for cell in row)
    table = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD,
        show_lines=has_lines, pad_edge=False, collapse_padding=True,
    )  # fmt: skip
    if numbered:
        table.add_column("#", justify="right", no_wrap=True)
    for column in (sheet.columns[position] for position in positions):
        side = "right" if column.numeric else "left"
        table.add_column(column.title, justify=side, no_wrap=not column.wraps, overflow="fold")
    for number, row in enumerate(sheet.rows, 1):
        texts = [Text(visible(row[position].text)) for position in positions]
        table.add_row(*([Text(str(number))] if numbered else []), *texts)
    return table


def markdown_page(sheets: Sequence[Sheet]) -> str:
    """Headings, tables and notes, for GitHub and its like."""
    parts = []
    for sheet in sheets:
        lines = [f"## {sheet.title}", "", _markdown_row(c.title for c in sheet.columns)]
        lines.append(_markdown_row("---:" if c.numeric else "---" for c in sheet.columns))
        lines += [_markdown_row(cell.text for cell in row) for row in sheet.rows]
        lines += [line for note in sheet.notes for line in ("", markdown(note))]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def comma_separated(sheet: Sheet, faults: Sheet | None) -> str:
    """One row for each of the sheet's, and one for each run folder that was not counted."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    extra = [column.key for column in faults.columns] if faults else []
    finished = ["", "finished", ""] if faults else []
    own = [column.key for column in sheet.columns]
    writer.writerow([*own, *extra])
    for row in sheet.rows:
        writer.writerow([*(visible(cell.text) for cell in row), *finished])
    for row in faults.rows if faults else []:
        writer.writerow([*[""] * len(own), *(visible(cell.text) for cell in row)])
    return text.getvalue()


def as_records(sheet: Sheet) -> list[dict]:
    """Rows as dictionaries: numbers where cells have them, else texts."""
    return [
        {
            column.key: cell.text if cell.value is None else cell.value
            for column, cell in zip(sheet.columns, row, strict=True)
        }
        for row in sheet.rows
    ]


def _markdown_row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(markdown(text) for text in texts)} |"
