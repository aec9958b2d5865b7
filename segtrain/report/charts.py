"""Charts for HTML pages: lines, bars and scatters.

Lines are SVG and stretch to the room there is, while texts and points are HTML and keep their size,
so that a chart is as readable on a phone as on a wide screen. Series and groups differ by colour
and by dash or shape. Exact values appear under the pointer, and with the arrow keys.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from segtrain.report.page import json_data
from segtrain.text import escape

COLOURS = 6  # of the style sheet, one a series or group; more begin again
DOTTED = 40  # lines of so many points or fewer have a dot at each,
DOTTED_SERIES = 3  # if there are so many of them or fewer; a line of one point always has it


class Series(NamedTuple):
    """A line: x ascending and y, of one length; points whose y is not finite are left out."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


class Bar(NamedTuple):
    """A bar from zero; None leaves the place empty."""

    name: str
    value: float | None
    text: str  # the value as it is written beside it
    note: str = ""  # shown when the pointer rests on it


class Point(NamedTuple):
    """A point of a scatter."""

    x: float
    y: float
    name: str  # stands beside it where there is room
    group: str = ""  # points of one group have one colour and shape
    href: str | None = None
    note: str = ""  # more for the text under the pointer


def number(value: float) -> str:
    """A number with about three digits: 1,234  12.3  0.0123  1.2e-05."""
    size = abs(value)
    if value == 0:
        return "0"
    if size >= 1000:
        return f"{value:,.0f}"
    if size < 1e-3:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.3g}"


def percent(value: float) -> str:
    """A fraction as a percentage: 0.7651 -> 76.5 %."""
    return f"{100 * value:.3g} %"


def line_chart(
    series: Sequence[Series],
    title: str,
    x_title: str,
    form: Callable[[float], str] = number,
    log_y: bool = False,
    from_zero: bool = False,
) -> str:
    """Lines over a common x.

    Args:
        series: at least one with at least one finite point.
        title: what y is.
        x_title: what x is.
        form: a value of y as text.
        log_y: logarithmic y; points of zero and less are left out.
        from_zero: whether y begins at zero.
    """
    kept = [_finite(one, log_y) for one in series]
    every_x = np.concatenate([one.x for one in kept])
    every_y = np.concatenate([one.y for one in kept])
    x_axis = _axis(every_x.min(), every_x.max(), log=False, tight=True)
    low = min(0.0, every_y.min()) if from_zero else every_y.min()
    y_axis = _axis(low, every_y.max(), log=log_y, tight=False)
    paths, dots, data = [], [], []
    for index, one in enumerate(kept):
        left, top = x_axis.place(one.x), 100 - y_axis.place(one.y)
        line = " ".join(f"{10 * x:.1f},{10 * y:.1f}" for x, y in zip(left, top, strict=True))
        kind = f"series-{index % COLOURS}"
        paths.append(f'<polyline class="{kind}" points="{line}"/>')
        if len(left) == 1 or (len(left) <= DOTTED and len(kept) <= DOTTED_SERIES):
            dots += [f'<i class="dot {kind}" style="left:{x:.2f}%;top:{y:.2f}%"></i>'
                     for x, y in zip(left, top, strict=True)]  # fmt: skip
        data.append({
            "name": one.name, "at": [round(float(x), 3) for x in left],
            "top": [round(float(y), 3) for y in top], "x": [number_of_steps(x) for x in one.x],
            "y": [form(y) for y in one.y],
        })  # fmt: skip
    content = (
        f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" aria-hidden="true">'
        f"{''.join(paths)}</svg>{''.join(dots)}"
    )
    legend = _legend([one.name for one in series], "line") if len(series) > 1 else ""
    said = f"{title} over {x_title}: " + "; ".join(
        f"{one.name} ends at {form(one.y[-1])}" for one in kept
    )
    return _chart("lines", title, legend, content, (x_axis, y_axis), (number_of_steps, form),
                  (x_title, ""), said, json_data("chart-data", data))  # fmt: skip


def number_of_steps(value: float) -> str:
    """A value of an x axis that counts steps: 1,200; with decimals only where it has them."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3g}"


def bar_chart(bars: Sequence[Bar], title: str, maximum: float = 1.0) -> str:
    """Horizontal bars in the given order, in several columns where there are many and it is wide.

    Args:
        bars: at least one.
        title: what the values are.
        maximum: the value of a full bar.
    """
    rows = []
    for bar in bars:
        width = 0.0 if bar.value is None else max(0.0, min(100.0, 100 * bar.value / maximum))
        note = escape(bar.note or f"{bar.name}: {bar.text}")
        rows.append(
            f'<li title="{note}"><span class="bar-name">{escape(bar.name)}</span>'
            f'<span class="bar-track"><i style="width:{width:.2f}%"></i></span>'
            f'<span class="bar-value">{escape(bar.text)}</span></li>'
        )
    kind = "bars many" if len(bars) > 24 else "bars"
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<ul class="{kind}">{"".join(rows)}</ul></figure>\n'
    )


def scatter_chart(
    points: Sequence[Point],
    title: str,
    x_title: str,
    y_title: str,
    x_form: Callable[[float], str] = number,
    y_form: Callable[[float], str] = number,
    log_x: bool = False,
) -> str:
    """Labelled points, such as accuracy (y) against speed (x).

    Args:
        points: at least one; where labels would overlap, those of later points appear only under
            the pointer.
        title: what it shows.
        x_title, y_title: what x and y are, with their units.
        x_form, y_form: a value of x, of y as text.
        log_x: logarithmic x; all x are then positive.
    """
    x_axis = _axis(*_ends([point.x for point in points]), log=log_x, tight=False)
    y_axis = _axis(*_ends([point.y for point in points]), log=False, tight=False)
    groups = list(dict.fromkeys(point.group for point in points))
    marks = []
    for point in points:
        index = groups.index(point.group) % COLOURS
        left, top = x_axis.place(point.x), 100 - y_axis.place(point.y)
        note = f"{point.name}: {y_form(point.y)}, {x_form(point.x)} {x_title}"
        note += f" ({point.note})" if point.note else ""
        tag = "span" if point.href is None else "a"
        target = ' tabindex="0"' if point.href is None else f' href="{escape(point.href)}"'
        marks.append(
            f'<{tag}{target} class="mark series-{index}" title="{escape(note)}" '
            f'style="left:{left:.2f}%;top:{top:.2f}%"><i class="dot shape-{index}"></i>'
            f"<b>{escape(point.name)}</b></{tag}>"
        )
    legend = _legend(groups, "shape") if len(groups) > 1 else ""
    said = f"{title}: {y_title} against {x_title} of {len(points)} points"
    return _chart("scatter", title, legend, "".join(marks), (x_axis, y_axis), (x_form, y_form),
                  (x_title, y_title), said, "")  # fmt: skip


class _Axis(NamedTuple):
    low: float  # of the logarithm, where `log`
    high: float
    ticks: list[float]  # values
    log: bool

    def place(self, value: float | np.ndarray) -> np.ndarray:
        """Per cent of the way from the low end to the high one."""
        shown = np.log10(value) if self.log else np.asarray(value, float)
        return 100 * (shown - self.low) / (self.high - self.low)


def _axis(low: float, high: float, log: bool, tight: bool) -> _Axis:
    """An axis with about five ticks; its ends are the values' if `tight`, else ticks."""
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        first, last = (first, last) if last > first else (first, first + 1)
        step = max(1, math.ceil((last - first) / 6))
        ticks = [10.0**exponent for exponent in range(first, last + 1, step)]
        if last - first <= 2:
            ticks = [m * 10.0**e for e in range(first, last) for m in (1, 2, 5)] + [10.0**last]
            while len(ticks) > 2 and ticks[1] <= low:
                ticks = ticks[1:]
            while len(ticks) > 2 and ticks[-2] >= high:
                ticks = ticks[:-1]
            return _Axis(math.log10(ticks[0]), math.log10(ticks[-1]), ticks, True)
        return _Axis(first, last, ticks, True)
    if high <= low:
        spread = abs(low) / 10 or 1.0
        low, high = (low, low + 1) if tight else (low - spread, high + spread)
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda step: abs(step - raw))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [round(k * step, 12) for k in range(first, last + 1)]
    if tight:
        return _Axis(low, high, [tick for tick in ticks if low <= tick <= high], False)
    return _Axis(ticks[0], ticks[-1], ticks, False)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _finite(series: Series, positive: bool) -> Series:
    x, y = np.asarray(series.x, float), np.asarray(series.y, float)
    kept = np.isfinite(y) & ((y > 0) | (not positive))
    return Series(series.name, x[kept], y[kept])


def _legend(names: Sequence[str], kind: str) -> str:
    items = "".join(
        f'<li><i class="key {kind} series-{k} shape-{k}"></i>{escape(name)}</li>'
        for k, name in ((index % COLOURS, name) for index, name in enumerate(names))
    )
    return f'<ul class="legend">{items}</ul>'


def _chart(
    kind: str,
    title: str,
    legend: str,
    content: str,
    axes: tuple[_Axis, _Axis],
    forms: tuple[Callable[[float], str], Callable[[float], str]],
    titles: tuple[str, str],
    said: str,
    data: str,
) -> str:
    """The frame of a chart: axes with ticks and titles around its HTML content."""
    ticks = "".join(
        f'<span class="tick x" style="left:{axes[0].place(tick):.2f}%">'
        f"{escape(forms[0](tick))}</span>"
        for tick in axes[0].ticks
    )
    labels = [forms[1](tick) for tick in axes[1].ticks]
    ticks += "".join(
        f'<span class="tick y" style="top:{100 - axes[1].place(tick):.2f}%">'
        f"<span>{escape(label)}</span></span>"
        for tick, label in zip(axes[1].ticks, labels, strict=True)
    )
    room = max(map(len, labels)) + 1
    y_title = f'<span class="y-title">{escape(titles[1])}</span>' if titles[1] else ""
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{legend}{y_title}'
        f'<div class="plot {kind}" style="--room:{room}ch" tabindex="0" role="img" '
        f'aria-label="{escape(said)}">{ticks}{content}</div>'
        f'<span class="x-title">{escape(titles[0])}</span>{data}</figure>\n'
    )
