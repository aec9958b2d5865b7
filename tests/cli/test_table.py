"""`table` from the command line: the forms of its output agree."""

import csv
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import WIDTHS, complaints, look, overflows, requests
from tabling import training, write_results


@pytest.fixture
def runs():
    """Two seeds of one experiment, one of another, an unfinished one and a broken one."""
    for seed, miou in ((1, 0.40), (2, 0.42)):
        write_results(f"outputs/m/{seed}", training(), miou=miou, seed=seed, dataset="shapes")
        Path(f"outputs/m/{seed}/report.html").write_text("<p>report</p>")
    write_results("outputs/b", training(experiment="pspnet_voc"), miou=0.5, dataset="shapes",
                  experiment="pspnet_voc", timing={"train_images_per_second": 99.0})  # fmt: skip
    Path("outputs/c").mkdir()
    Path("outputs/c/results.json").write_text("{}")
    Path("outputs/d").mkdir()
    Path("outputs/d/config.yaml").write_text("{experiment: x, optimizer: {}, trainer: {}}")


class Rows(HTMLParser):
    """Texts of all cells, row by row, and the links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.links: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "a":
            self.links.append(dict(attrs)["href"])
        self.inside = self.inside or tag in ("td", "th")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


def markdown_rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    rows = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in lines]
    plain = [[re.sub(r"\\(.)", r"\1", c.replace("<br>", "\n")) for c in row] for row in rows]
    return [row for row in plain if not row[0].startswith("--")]


def test_the_forms_of_layout_runs_agree(segtrain, runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "240")
    code, out, err = segtrain("table", "layout=runs", "output=[t/t.md,t/t.csv,t/t.html]")
    assert code == 0, err
    page = Rows(Path("t/t.html").read_text())
    from_markdown = markdown_rows(Path("t/t.md").read_text())
    with open("t/t.csv") as file:
        from_csv = list(csv.reader(file))
    assert len(from_csv) == 1 + 2 + 2
    expected = [row[:14] for row in from_csv[1:3]]
    assert expected[0][:7] == ["pspnet_voc", "shapes", "val", "whole, stride 16", "mIoU", "50.00",
                               "1"]  # fmt: skip
    assert expected[1][5:7] == ["41.00 ± 1.41", "2"]
    assert from_markdown[1:3] == expected
    for row in expected:
        assert row in page.rows
        assert any(re.split(r" {2,}", line.strip()) == row for line in out.splitlines())
    for folder, status in (("outputs/c", "broken"), ("outputs/d", "unfinished")):
        (of_csv,) = [row[-3:] for row in from_csv if row[-3] == folder]
        assert of_csv[1] == status
        assert of_csv in page.rows
        assert of_csv in from_markdown
        assert re.search(rf"{folder} +{status} ", out)
    assert "../outputs/m/1/report.html" in page.links
    assert (Path("t") / page.links[0]).resolve().is_file()
    text = Path("t/t.html").read_text()
    assert "mIoU against training speed" in text
    assert not re.search(r"(src|href)=\"https?:", text)


def test_the_forms_of_layout_published_agree(segtrain, runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    write_results("outputs/e", training(), miou=0.7712)
    code, out, err = segtrain("table", "output=[t.md,t.csv,t.html]")
    assert code == 0, err
    page = Rows(Path("t.html").read_text())
    from_markdown = markdown_rows(Path("t.md").read_text())
    with open("t.csv") as file:
        cells = [row for row in csv.DictReader(file) if row["system"]]
    assert len(cells) == 20
    (cell,) = [row for row in cells if row["system"] == "DeepLabv3" and row["ours"]]
    assert (cell["ours"], cell["difference"], cell["shown"]) == ("77.12", "(−9.78)", "yes")
    text = "\n".join([cell["ours"], f"{cell['difference']}, n={cell['seeds']}",
                      f"{cell['split']}, {cell['protocol']}"])  # fmt: skip
    for rows in (page.rows, from_markdown):
        assert [row[0] for row in rows[1:12]] == list(dict.fromkeys(c["system"] for c in cells))
        (shown,) = [row[1] for row in rows if row[0] == "DeepLabv3"]
        assert re.sub(r" \[\d+\]", "", shown) == f"{cell['paper']}\n{text}"
    for line in text.split("\n"):
        assert line in out


@pytest.mark.parametrize(
    ("order", "first"),
    [("score", "deeplabv3_voc"), ("-score", "pspnet_voc"), ("-miou", "pspnet_voc"),
     ("experiment", "deeplabv3_voc"), ("images_per_second", "deeplabv3_voc"),
     ("-images_per_second", "pspnet_voc"), ("-seeds", "deeplabv3_voc")],
)  # fmt: skip
def test_sorted_by_any_column(segtrain, runs, order, first):
    code, out, err = segtrain("table", "layout=runs", f"sort={order}")
    assert code == 0, err
    names = re.findall(r"^ (deeplabv3_voc|pspnet_voc)", out, re.MULTILINE)
    assert names[0] == first


def test_sorted_by_the_time_to_a_score(segtrain):
    """On the training's clock; what has not reached it comes last."""
    for name, reached in {"slow": 90.0, "fast": 30.0, "never": None}.items():
        made = [{"step": 1, "seconds": 10.0, "score": 0.2}]
        made += [{"step": 2, "seconds": reached, "score": 0.6}] if reached else []
        write_results(f"outputs/{name}", training(experiment=name), experiment=name,
                      timing={"validations": made})  # fmt: skip
    write_results("outputs/old", training(experiment="old"), experiment="old")
    code, out, err = segtrain("table", "layout=runs", "sort=seconds_to_59.5", "output=t.html")
    assert code == 0, err
    page = Path("t.html").read_text()
    assert "Accuracy against time" in page
    assert "slow slow" in page
    assert "never never" not in page  # one validation is no line
    assert "to 59.5 %" in out
    assert re.findall(r"^ (slow|fast|never|old) .*? (\d+ s|–) *$", out, re.M)[:2] == [
        ("fast", "30 s"), ("slow", "90 s")
    ]  # fmt: skip
    assert segtrain("table", "layout=runs", "sort=seconds_to_x")[0] == 2


@pytest.mark.parametrize("layout", ["runs", "published"])
def test_page_in_the_browser(segtrain, runs, chromium, layout):
    code, _, err = segtrain("table", f"layout={layout}", "output=t/t.html")
    assert code == 0, err
    for width in WIDTHS:
        for dark in (False, True):
            look(chromium, Path("t/t.html"), width, dark)
            assert complaints(chromium) == []
            assert requests(chromium) == []
            assert not overflows(chromium)
    link = chromium.find_element("css selector", "td a[href$='m/1/report.html']")
    chromium.execute_script("arguments[0].click()", link)
    assert chromium.find_element("css selector", "p").text == "report"


def test_page_is_sorted_by_a_click(segtrain, runs, chromium):
    assert segtrain("table", "layout=runs", "output=t.html")[0] == 0
    look(chromium, Path("t.html"))
    table = chromium.find_element("css selector", "table")
    (head,) = [th for th in table.find_elements("css selector", "th") if "score" in th.text]
    seen = set()
    for _ in range(2):
        head.find_element("css selector", "button").click()
        rows = table.find_elements("css selector", "tbody tr")
        seen.add(tuple(row.find_element("css selector", "td, th").text for row in rows))
    assert seen == {("deeplabv3_voc", "pspnet_voc"), ("pspnet_voc", "deeplabv3_voc")}


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_narrow_terminal_gets_all_columns(segtrain, runs, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = segtrain("table", "layout=runs")
    assert code == 0
    assert max(map(len, out.splitlines())) <= width
    for title in ("score %", "device mem", "devices"):
        assert title in out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["runs=[lost]"], ["runs=lost", "no such folder"]),
        (["layout=x"], ["layout=x", "published, runs"]),
        (["layout=runs", "sort=moiu"], ["sort=moiu", "nearest: miou"]),
        (["output=t.pdf"], ["output=t.pdf", ".md, .csv, .html"]),
    ],
)
def test_mistakes(segtrain, runs, arguments, parts):
    code, _, err = segtrain("table", *arguments)
    assert code == 2
    assert all(part in err for part in parts), err
