"""How results show themselves in notebooks: HTML without scripts, style sheets or requests.

Ink and ground are the notebook's own, so that light and dark themes can both be read; lines and
bars are half transparent. Arguments that are said to be HTML are put in as they are; all other
texts are escaped.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segtrain.text import escape, visible

if TYPE_CHECKING:
    from PIL import Image

PICTURE_SIDES = (384, 640)  # pixels, of a picture's longer side: less is enlarged, more reduced
LINE = "rgba(128,128,128,.35)"
BAR = "rgba(92,124,250,.75)"
LONGEST = 110  # characters of a representation

Colour = tuple[int, int, int]


@dataclass(frozen=True, repr=False)
class Table(Sequence):
    """Rows of values under the names of their columns; an item is a row as a dict.

    `pandas.DataFrame(table)` and `list(table)` take it as it is.

    Args:
        columns: their names.
        rows: one value a column; numbers in 0..1 are shown in percent, None as `-`.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, str | float | None]:
        return dict(zip(self.columns, self.rows[index], strict=True))

    def __iter__(self) -> Iterator[dict[str, str | float | None]]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return one_line(f"<Table {len(self)} rows: {', '.join(self.columns)}>")

    def _repr_html_(self) -> str:
        return table(self.columns, [[value_cell(value) for value in row] for row in self.rows])


def one_line(text: str) -> str:
    """The text on one line of at most LONGEST characters."""
    text = " ".join(visible(text).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 2]}…{text[-1]}"


def percent(share: float | None) -> str:
    """`76.5 %` for 0.765."""
    if share is None:
        return "-"
    return "<0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def card(title: str, subtitle: str, *parts: str) -> str:
    """A result.

    Args:
        title: what it is.
        subtitle: beside it.
        parts: HTML, side by side where there is room, else one below the other.
    """
    style = "display:flex;flex-wrap:wrap;gap:8px 24px;align-items:flex-start"
    inside = "".join(f'<div style="min-width:0;max-width:100%">{part}</div>' for part in parts)
    return (
        '<div style="margin:4px 0;line-height:1.45">'
        f'<div style="margin-bottom:8px"><b>{escape(title)}</b> '
        f'<span style="opacity:.7">{escape(subtitle)}</span></div>'
        f'<div style="{style}">{inside}</div></div>'
    )


def picture(image: "Image.Image", description: str) -> str:
    """A picture inside the page, as PNG.

    Args:
        image: not larger than it is to be shown.
        description: for those who do not see it.
    """
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    address = base64.b64encode(content.getvalue()).decode()
    return (
        f'<img alt="{escape(description)}" width="{image.width}" '
        'style="display:block;max-width:100%;height:auto;border-radius:4px" '
        f'src="data:image/png;base64,{address}">'
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; a wide one scrolls by itself.

    Args:
        heads: of the columns; none where all are empty.
        rows: HTML of the cells.
    """
    common = "text-align:left;padding:2px 16px 2px 0;white-space:nowrap;background:none"
    above = f"{common};border:0;border-bottom:1px solid {LINE}"
    head = "".join(f'<th style="{above};font-weight:600">{escape(name)}</th>' for name in heads)
    body = "".join(
        '<tr style="background:none">'
        + "".join(f'<td style="{common};border:0">{cell}</td>' for cell in row)
        + "</tr>"
        for row in rows
    )
    return (
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;margin:0;'
        'color:inherit;font-size:90%">'
        + (f"<thead><tr>{head}</tr></thead>" if any(heads) else "")
        + f"<tbody>{body}</tbody></table></div>"
    )


def facts(values: dict[str, str]) -> str:
    """Names and values, two columns."""
    rows = [[f'<span style="opacity:.7">{escape(name)}</span>', escape(value)]
            for name, value in values.items()]  # fmt: skip
    return table(("", ""), rows)


def swatch(text: str, colour: Colour | None) -> str:
    """A text behind a field of its colour; the field is hollow for None."""
    fill = "transparent" if colour is None else "rgb({},{},{})".format(*map(int, colour))
    return (
        '<span style="display:inline-block;width:12px;height:12px;border-radius:3px;'
        f'margin-right:6px;vertical-align:-1px;border:1px solid {LINE};background:{fill}">'
        f"</span>{escape(text)}"
    )


def chips(texts: Sequence[tuple[str, Colour | None]]) -> str:
    """Texts with their colours, line by line as they fit."""
    parts = "".join(f"<span>{swatch(text, colour)}</span>" for text, colour in texts)
    return f'<div style="display:flex;flex-wrap:wrap;gap:2px 14px;font-size:90%">{parts}</div>'


def share_cell(share: float) -> str:
    """A number in 0..1 as a bar and in percent."""
    return (
        f'<span style="display:inline-block;width:80px;height:8px;border-radius:4px;'
        f'margin-right:8px;background:{LINE}"><span style="display:block;height:8px;'
        f'border-radius:4px;width:{100 * min(1.0, max(0.0, share)):.1f}%;background:{BAR}">'
        f"</span></span>{escape(percent(share))}"
    )


def value_cell(value: str | float | None) -> str:
    """A value of a `Table` as HTML."""
    if value is None:
        return "-"
    return escape(value) if isinstance(value, str) else share_cell(value)
