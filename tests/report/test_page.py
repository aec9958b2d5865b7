import re

import pytest

from segtrain.report.page import (
    Cell,
    Column,
    Tile,
    anchor,
    code,
    facts,
    folded,
    json_data,
    links,
    notice,
    page,
    section,
    table,
    tiles,
)

NASTY = "<script>alert(1)</script> & \"'"


def test_texts_are_escaped_everywhere():
    html = page(
        NASTY,
        NASTY,
        section(NASTY, notice(NASTY) + tiles([Tile(NASTY, NASTY, NASTY)]), NASTY, NASTY)
        + facts({NASTY: NASTY})
        + folded(NASTY, code(NASTY))
        + links({NASTY: "a/" + NASTY})
        + table([Column(NASTY, note=NASTY)], [[Cell(NASTY, NASTY, NASTY, NASTY)]], NASTY)
        + json_data("names", {NASTY: NASTY}),
        NASTY,
    )
    assert "<script>alert" not in html
    assert "alert(1)" in html


def test_a_page_names_no_other_place():
    html = page("t", "s", "")
    assert not re.search(r"https?://", html)
    assert "@import" not in html
    assert "default-src 'none'" in html
    assert html.startswith("<!doctype html>")


@pytest.mark.parametrize("href", ["javascript:alert(1)", "data:text/html,x", "vbscript:x"])
def test_links_run_no_code(href):
    with pytest.raises(ValueError, match="address"):
        anchor("text", href)


def test_links_to_files_and_pages():
    for href in ("report.html", "../2026-01-01_10:00:00/report.html", "#part", "https://arxiv.org"):
        assert f'href="{href}"' in anchor("text", href)


def test_cells_without_an_order_have_none_in_numeric_columns_only():
    html = table([Column("name"), Column("value", numeric=True)], [["a", "-"], ["b", Cell("2", 2)]])
    assert html.count("data-order") == 3
    assert 'data-order="2"' in html
