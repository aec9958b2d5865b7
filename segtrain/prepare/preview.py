"""Contact sheet of augmented training samples, to see at a glance whether the labels are right.

`write_preview` writes one picture and one web page with the same content: each sample beside its
label overlay, then all classes with their frequency, which is legend and histogram in one.
"""

import base64
import io
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from segtrain.label_set import LabelSet
from segtrain.prepare.frequency import (
    Entry,
    bar_length,
    brief,
    caption,
    class_entries,
    decades,
    percent_text,
    sample_entries,
)
from segtrain.prepare.overlay import PICTURE_SIDE, Sample, draw_sample
from segtrain.report.drawing import shorten, typeface
from segtrain.text import escape
from segtrain.writing import write_picture, write_text

GAP, MARGIN, COLUMNS = 8, 28, 3
TILE_WIDTH = 2 * PICTURE_SIDE + GAP
SHEET_WIDTH = COLUMNS * TILE_WIDTH + (COLUMNS + 1) * MARGIN
MIN_TABLE_ROWS = 12  # fewer classes stay in one column
INK, GREY, ALERT, GRID = "#1d1f23", "#6a6f78", "#c0271a", "#dfe2e6"


def write_preview(
    samples: list[Sample], labels: LabelSet, counts: np.ndarray, title: str, folder: Path
) -> list[Path]:
    """Write `contact_sheet.png` and `contact_sheet.html` into a folder, made if need be.

    Args:
        samples: shown in this order; semantic, or all of an instance set.
        labels: names and colours of the K classes.
        counts: (K+1,) pixels per class and, last, void; of an instance set the instances per
            class and, last, crowds.
        title: heading of both files.
        folder: where the files go.

    Returns:
        The paths of the picture and of the page.

    Raises:
        ValueError: counts are not K+1, or a mask does not have its image's size.
    """
    if counts.shape != (labels.num_classes + 1,):
        raise ValueError(f"expected {labels.num_classes + 1} counts, got shape {counts.shape}")
    for sample in samples:
        size = sample.image.shape[:2]
        if sample.instances is None and sample.label.shape[:2] != size:
            raise ValueError(f"{sample.name}: mask {sample.label.shape}, image {size}")
    instances = any(sample.instances is not None for sample in samples)
    classes = class_entries(
        labels, counts, counts, int(counts.sum()), "crowd" if instances else "void"
    )
    unit = "instances" if instances else "pixels"
    sheet, page = folder / "contact_sheet.png", folder / "contact_sheet.html"
    write_picture(_draw_sheet(samples, labels, classes, title, unit), sheet)
    write_text(page, _page(samples, labels, classes, title, unit))
    return [sheet, page]


def _draw_sheet(
    samples: list[Sample], labels: LabelSet, classes: list[Entry], title: str, unit: str
) -> Image.Image:
    """Heading, tiles and class table in rows of blocks on white."""
    tiles = [_tile(sample, labels) for sample in samples]
    rows = [[_heading(title, _summary(samples, classes, unit))]]
    rows += [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
    rows += [[_heading("Classes", f"{unit} per class, bars on a logarithmic scale")]]
    rows += [[_class_column(column, *decades(classes)) for column in _columns(classes)]]
    heights = [max(block.height for block in row) for row in rows]
    sheet = Image.new("RGB", (SHEET_WIDTH, sum(heights) + (len(rows) + 1) * MARGIN), "white")
    top = MARGIN
    for row, height in zip(rows, heights, strict=True):
        for column, block in enumerate(row):
            sheet.paste(block, (MARGIN + column * (TILE_WIDTH + MARGIN), top))
        top += height + MARGIN
    return sheet


def _block(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    block = Image.new("RGB", (width, height), "white")
    return block, ImageDraw.Draw(block)


def _heading(title: str, detail: str) -> Image.Image:
    width = SHEET_WIDTH - 2 * MARGIN
    (block, draw), font = _block(width, 64), typeface(28, bold=True)
    draw.text((0, 0), shorten(title, width, font), INK, font)
    draw.text((0, 40), detail, GREY, typeface(17))
    return block


def _tile(sample: Sample, labels: LabelSet) -> Image.Image:
    """Image and overlay, and below them the name, the size and two lines of classes."""
    image, overlay = draw_sample(sample, labels)
    block, draw = _block(TILE_WIDTH, image.height + 76)
    block.paste(image, (0, 0))
    block.paste(overlay, (image.width + GAP, 0))
    top, size = image.height + 8, f"{sample.image.shape[:2][1]} × {sample.image.shape[:2][0]}"
    draw.text((TILE_WIDTH, top), size, GREY, typeface(15), anchor="ra")
    room = TILE_WIDTH - math.ceil(typeface(15).getlength(size)) - 16
    font = typeface(16, bold=True)
    draw.text((0, top), shorten(sample.name, room, font), INK, font)
    _draw_classes(draw, sample, sample_entries(sample, labels), top + 24)
    return block


def _draw_classes(
    draw: ImageDraw.ImageDraw, sample: Sample, entries: list[Entry], top: int
) -> None:
    """As many classes as fit in two lines, then how many are left."""
    left, bottom, font = 0, top + 22, typeface(14)
    for index, entry in enumerate(entries):
        text = shorten(caption(sample, entry), 300, font)
        width, more = 19 + math.ceil(font.getlength(text)), f"+{len(entries) - index} more"
        needed = width + (85 if top == bottom and index < len(entries) - 1 else 0)
        if left + needed > TILE_WIDTH and top == bottom:
            draw.text((left, top), more, GREY, font)
            return
        if left + needed > TILE_WIDTH:
            left, top = 0, bottom
        _draw_swatch(draw, (left, top + 2, left + 14, top + 16), entry.colour)
        draw.text((left + 19, top), text, INK, font)
        left += width + 16


def _draw_swatch(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], colour: tuple[int, int, int] | None
) -> None:
    left, top, right, bottom = box
    draw.rectangle(box, fill=colour or "#ebebeb", outline=GREY)
    for x in range(left, right, 5) if colour is None else ():
        draw.line((x, bottom, min(right, x + bottom - top), max(top, bottom - right + x)), GREY)


def _columns(classes: list[Entry]) -> list[list[Entry]]:
    rows = max(MIN_TABLE_ROWS, math.ceil(len(classes) / COLUMNS))
    return [classes[start : start + rows] for start in range(0, len(classes), rows)]


def _class_column(entries: list[Entry], low: int, high: int) -> Image.Image:
    """Swatch, train id, name, bar, count and share of some classes, one a row."""
    block, draw = _block(TILE_WIDTH, 26 + 24 * len(entries))
    start, length = 270, 250
    for power in range(low, high + 1, math.ceil((high - low) / 6)):
        x = start + length * (power - low) / (high - low)
        draw.line((x, 20, x, block.height), GRID)
        draw.text((x, 16), brief(10**power), GREY, typeface(12), anchor="ms")
    for row, entry in enumerate(entries):
        top = 26 + 24 * row
        _draw_swatch(draw, (0, top + 3, 22, top + 19), entry.colour)
        number = "–" if entry.train_id is None else str(entry.train_id)
        draw.text((58, top + 2), number, GREY, typeface(15), anchor="ra")
        draw.text((68, top + 2), shorten(entry.name, start - 78, typeface(15)), INK, typeface(15))
        if entry.count:
            right = start + round(length * bar_length(entry.count, low, high))
            _draw_swatch(draw, (start, top + 3, right, top + 19), entry.colour)
        elif entry.train_id is not None:
            draw.text((start + 4, top + 2), "absent", ALERT, typeface(15, bold=True))
        draw.text((start + 330, top + 2), brief(entry.count), INK, typeface(15), anchor="ra")
        draw.text((TILE_WIDTH, top + 2), percent_text(entry.share), GREY, typeface(15), anchor="ra")
    return block


def _summary(samples: list[Sample], classes: list[Entry], unit: str) -> str:
    absent = sum(entry.count == 0 for entry in classes[:-1])
    return (
        f"{len(samples)} samples · {len(classes) - 1} classes, {absent} absent · "
        f"{brief(sum(entry.count for entry in classes))} {unit}, "
        f"{percent_text(classes[-1].share)} {classes[-1].name}"
    )


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root {{ color-scheme: light dark; --ink: #1d1f23; --soft: #656b75; --back: #fff; --line: #dfe2e6;
  --alert: #c0271a }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e4e6ea; --soft: #9aa1ac; --back: #17191d;
  --line: #33373e; --alert: #ff8a75 }} }}
body {{ margin: 2rem; font: 15px/1.4 system-ui, sans-serif; color: var(--ink);
  background: var(--back) }}
h1 {{ font-size: 1.6rem; margin: 0 }} h2 {{ font-size: 1.2rem; margin: 2.5rem 0 0 }}
p, .soft {{ color: var(--soft) }} p {{ margin: .2rem 0 1rem }}
.grid {{ display: grid; gap: 2rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 690px), 1fr)) }}
figure {{ margin: 0 }} figcaption b {{ overflow-wrap: anywhere }}
.pair {{ display: flex; gap: .4rem; align-items: start; margin-bottom: .4rem }}
.pair img {{ max-width: calc(50% - .2rem) }}
ul {{ display: flex; flex-wrap: wrap; gap: .1rem .9rem; list-style: none; margin: 0; padding: 0;
  max-height: 7rem; overflow: auto }}
i {{ display: inline-block; width: .8em; height: .8em; margin-right: .3em;
  border: 1px solid var(--soft); box-sizing: border-box }}
i.hatch {{ background: repeating-linear-gradient(135deg, #ebebeb 0 3px, #777 3px 5px) }}
table {{ border-collapse: collapse; width: 100% }} td {{ padding: .1rem .4rem }}
tr {{ border-bottom: 1px solid var(--line) }} .number {{ text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums }}
td.bar {{ width: 40% }} td.bar i {{ display: block; margin: 0 }} .absent {{ color: var(--alert) }}
</style></head><body><h1>{title}</h1><p>{summary}</p><div class="grid">{figures}</div>
<h2>Classes</h2><p>{unit} per class, bars on a logarithmic scale from {low} to {high}</p>
<div class="grid">{tables}</div></body></html>
"""


def _page(
    samples: list[Sample], labels: LabelSet, classes: list[Entry], title: str, unit: str
) -> str:
    low, high = decades(classes)
    tables = (
        "".join(_row(entry, low, high, unit) for entry in column) for column in _columns(classes)
    )
    return PAGE.format(
        title=escape(title),
        summary=escape(_summary(samples, classes, unit)),
        figures="".join(_figure(sample, labels) for sample in samples),
        unit=unit, low=brief(10**low), high=brief(10**high),
        tables="".join(f"<table>{rows}</table>" for rows in tables),
    )  # fmt: skip


def _figure(sample: Sample, labels: LabelSet) -> str:
    image, overlay = draw_sample(sample, labels)
    name, (height, width) = escape(sample.name), sample.image.shape[:2]
    items = "".join(
        f"<li>{_square(entry)}{escape(caption(sample, entry))}</li>"
        for entry in sample_entries(sample, labels)
    )
    return (
        f'<figure><div class="pair"><img src="{_embed(image)}" alt="{name}">'
        f'<img src="{_embed(overlay)}" alt="labels of {name}"></div><figcaption>'
        f'<b>{name}</b> <span class="soft">{width} × {height}</span><ul>{items}</ul>'
        "</figcaption></figure>\n"
    )


def _row(entry: Entry, low: int, high: int, unit: str) -> str:
    name, share = escape(entry.name), escape(percent_text(entry.share))
    number, bar = ("", "") if entry.train_id is None else (entry.train_id, "absent")
    if entry.count:
        bar = _square(entry, f"width:{100 * bar_length(entry.count, low, high):.1f}%;")
    return (
        f'<tr title="{name}: {entry.count:,} {unit}, {share}">'
        f'<td>{_square(entry)}</td><td class="number soft">{number}</td><td>{name}</td>'
        f'<td class="bar{"" if entry.count else " absent"}">{bar}</td>'
        f'<td class="number">{brief(entry.count)}</td>'
        f'<td class="number soft">{share}</td></tr>\n'
    )


def _square(entry: Entry, style: str = "") -> str:
    if entry.colour is None:
        return f'<i class="hatch" style="{style}"></i>'
    return f'<i style="{style}background:rgb{tuple(map(int, entry.colour))}"></i>'


def _embed(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88, subsampling=0)  # keeps the thin lines' colours
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
