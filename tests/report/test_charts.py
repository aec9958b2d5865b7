import math
import re

import numpy as np
import pytest

from segtrain.report.charts import (
    Bar,
    Point,
    Series,
    bar_chart,
    line_chart,
    number,
    percent,
    scatter_chart,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234.4, "1,234"), (12.34, "12.3"), (0.0123, "0.0123"), (0.00002, "2e-5"),
     (-3.5, "-3.5")],
)  # fmt: skip
def test_numbers(value, text):
    assert number(value) == text


def places(html: str, kind: str) -> list[float]:
    return [float(found) for found in re.findall(rf'{kind} style="left:([\d.-]+)%', html)]


def test_ticks_lie_on_the_axis_and_points_in_the_frame():
    rng = np.random.default_rng(0)
    for scale in (1e-6, 0.3, 1, 1e5):
        points = [Point(x, y, "p") for x, y in rng.uniform(0.2 * scale, scale, (9, 2))]
        for log_x in (False, True):
            html = scatter_chart(points, "t", "x", "y", log_x=log_x)
            for left in re.findall(r"(?:left|top):([\d.-]+)%", html):
                assert -0.01 <= float(left) <= 100.01
            assert html.count('class="tick x"') >= 3
            assert html.count('class="tick y"') >= 3


def test_lines_leave_out_what_is_not_finite():
    html = line_chart([Series("a", [0, 1, 2, 3], [1.0, math.nan, math.inf, 2.0])], "t", "step")
    (points,) = re.findall(r'points="([^"]+)"', html)
    assert len(points.split()) == 2
    logarithmic = line_chart([Series("a", [0, 1, 2], [0.0, 0.1, 10.0])], "t", "step", log_y=True)
    (points,) = re.findall(r'points="([^"]+)"', logarithmic)
    assert len(points.split()) == 2


@pytest.mark.parametrize("value", [0.0, 0.5, -2.0])
def test_a_single_value_and_a_constant_line(value):
    for steps in ([5], [5, 6, 7]):
        html = line_chart([Series("a", steps, [value] * len(steps))], "t", "step")
        assert "nan" not in html
        assert html.count('class="dot') == len(steps)
    assert "nan" not in scatter_chart([Point(3.0, value, "p")], "t", "x", "y")


def test_one_legend_entry_a_series_and_group():
    series = [Series(name, [0, 1], [0, 1]) for name in ("one", "two", "three")]
    assert line_chart(series, "t", "step").count("<li>") == 3
    assert "<li>" not in line_chart(series[:1], "t", "step")
    points = [Point(1, 2, "a", "x", "a/report.html"), Point(2, 3, "b", "y"), Point(3, 4, "c", "y")]
    html = scatter_chart(points, "t", "images/s", "mIoU", y_form=percent)
    assert html.count("<li>") == 2
    assert 'href="a/report.html"' in html


def test_bars():
    html = bar_chart([Bar("road", 0.5, "50 %"), Bar("sky <b>", None, "absent")], "IoU")
    assert "width:50.00%" in html
    assert "width:0.00%" in html
    assert "sky &lt;b&gt;" in html
