"""HTML pages in one file: light and dark, from a phone to a wide screen, without any request.

Every function returns HTML as text. Arguments called `body`, or said to be HTML, are put in as they
are; all other texts are escaped. `page` makes the file; the others make what stands in it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

from segtrain.text import escape

STATIC = (
    "page.css",
    "charts.css",
    "examples.css",
    "page.js",
    "charts.js",
    "heat_map.js",
    "examples.js",
)
# The browser itself refuses whatever a page of ours would load from anywhere else.
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)


class Column(NamedTuple):
    """A column of a table."""

    title: str
    numeric: bool = False  # right-aligned; sorted from the largest first
    note: str = ""  # shown when the pointer rests on the title


class Cell(NamedTuple):
    """A cell of a table; a plain text stands for one without the rest."""

    text: str
    order: float | str | None = None  # what it is sorted by; None: last, or as its text if not
    href: str | None = None  # numeric. A relative address or one that begins with # or https://
    note: str = ""  # shown when the pointer rests on it
    best: bool = False  # emphasised


class Tile(NamedTuple):
    """A figure that stands out at the top of a page."""

    title: str
    value: str
    note: str = ""


def page(title: str, subtitle: str, body: str, footer: str = "") -> str:
    """A whole HTML document.

    Args:
        title: of the document, and its first heading.
        subtitle: below it, may be empty.
        body: HTML.
        footer: a last line, may be empty.
    """
    styles = "".join(_static(name) for name in STATIC if name.endswith(".css"))
    scripts = "".join(_static(name) for name in STATIC if name.endswith(".js"))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{styles}</style>\n</head>\n<body>\n"
        f"<header><h1>{escape(title)}</h1>"
        + (f'<p class="subtitle">{escape(subtitle)}</p>' if subtitle else "")
        + f"</header>\n<main>\n{body}\n</main>\n"
        + (f"<footer>{escape(footer)}</footer>\n" if footer else "")
        + f"<script>\n{scripts}</script>\n</body>\n</html>\n"
    )


def section(title: str, body: str, intro: str = "", anchor: str = "") -> str:
    """A part of a page under a heading of its own.

    Args:
        title: the heading.
        body: HTML.
        intro: a sentence below the heading, may be empty.
        anchor: the part's id, for links and the contents; may be empty.
    """
    where = f' id="{escape(anchor)}"' if anchor else ""
    lead = paragraph(intro, muted=True) if intro else ""
    return f"<section{where}>\n<h2>{escape(title)}</h2>\n{lead}{body}\n</section>\n"


def paragraph(text: str, muted: bool = False) -> str:
    """A paragraph of plain text."""
    return f"<p{' class=muted' if muted else ''}>{escape(text)}</p>\n"


def notice(text: str) -> str:
    """A paragraph that says what is missing, or what the reader must know."""
    return f'<p class="notice" role="note">{escape(text)}</p>\n'


def tiles(figures: Iterable[Tile]) -> str:
    """Figures side by side, the first the largest."""
    parts = [
        f'<div class="tile"><dt>{escape(figure.title)}</dt><dd>{escape(figure.value)}'
        + (f"<small>{escape(figure.note)}</small>" if figure.note else "")
        + "</dd></div>"
        for figure in figures
    ]
    return f'<dl class="tiles">{"".join(parts)}</dl>\n'


def facts(values: Mapping[str, str]) -> str:
    """Names and values, two columns."""
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in values.items())
    return f'<dl class="facts">{rows}</dl>\n'


def links(targets: Mapping[str, str]) -> str:
    """Links on one line: text -> address, relative or one that begins with # or https://."""
    parts = "".join(f"<li>{anchor(text, href)}</li>" for text, href in targets.items())
    return f'<ul class="links">{parts}</ul>\n'


def anchor(text: str, href: str) -> str:
    """A link.

    Raises:
        ValueError: the address would run code.
    """
    scheme = href.partition("/")[0].partition("#")[0]
    if ":" in scheme and scheme not in ("https:", "http:"):
        raise ValueError(f"{href} is not an address that a page links to")
    return f'<a href="{escape(href)}">{escape(text)}</a>'


def folded(title: str, body: str, opened: bool = False) -> str:
    """A part that opens when its title is clicked; `body` is HTML."""
    return (
        f"<details{' open' if opened else ''}><summary>{escape(title)}</summary>\n"
        f"{body}</details>\n"
    )


def code(text: str) -> str:
    """Text in a fixed-width typeface, line by line, such as YAML."""
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>\n'


def columns(*parts: str) -> str:
    """HTML parts side by side where there is room, else one below the other."""
    return f'<div class="columns">{"".join(f"<div>{part}</div>" for part in parts)}</div>\n'


def table(
    heads: Sequence[Column],
    rows: Sequence[Sequence[Cell | str]],
    caption: str = "",
    sortable: bool = True,
) -> str:
    """A table whose rows are sorted by a click on (or Enter at) a column's title.

    A wide one scrolls by itself, its first column stays. Cells without an order are last in both
    directions.

    Args:
        heads: the columns.
        rows: one cell a column each.
        caption: above it, may be empty.
        sortable: whether it can be sorted.
    """
    head = "".join(_head(column, sortable) for column in heads)
    body = "".join(
        f"<tr>{''.join(_cell(c, h) for c, h in zip(row, heads, strict=True))}</tr>\n"
        for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption or "table")}">'
        f"<table{' class=sortable' if sortable else ''}>{title}<thead><tr>{head}</tr></thead>"
        f"<tbody>\n{body}</tbody></table></div>\n"
    )


def json_data(kind: str, content: object) -> str:
    """Data for a page's scripts, in an element of the class `kind`."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    text = text.replace("<", "\\u003c")  # nothing in it can end the element
    return f'<script type="application/json" class="{kind}">{text}</script>'


def _head(column: Column, sortable: bool) -> str:
    title = escape(column.title)
    text = f'<button type="button">{title}</button>' if sortable else title
    note = f' title="{escape(column.note)}"' if column.note else ""
    kind = ' class="number"' if column.numeric else ""
    return f'<th scope="col"{kind}{note}>{text}</th>'


def _cell(cell: Cell | str, column: Column) -> str:
    if isinstance(cell, str):
        cell = Cell(cell, order=None)
    order = cell.order
    if order is None and not column.numeric:
        order = cell.text
    kinds = [name for name, on in (("number", column.numeric), ("best", cell.best)) if on]
    attributes = f' class="{" ".join(kinds)}"' if kinds else ""
    attributes += f' data-order="{escape(str(order))}"' if order is not None else ""
    attributes += f' title="{escape(cell.note)}"' if cell.note else ""
    text = escape(cell.text) if cell.href is None else anchor(cell.text, cell.href)
    return f"<td{attributes}>{text}</td>"


@lru_cache
def _static(name: str) -> str:
    return (files("segtrain.report") / "static" / name).read_text(encoding="utf-8")
