"""Names with markup, escape sequences and control characters are text, wherever they are shown."""

import numpy as np
import pytest
from conftest import REPORTED, write_pair
from rich.table import Table
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segtrain.label_set import LabelSet
from segtrain.text import console, markdown, visible

CLEAR = "\x1b[2J"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [red]", "plain [red]"),
        (f"a{CLEAR}b", "a\\x1b[2Jb"),
        ("a\rb\x07\x7f\x9b1m", "a\\rb\\x07\\x7f\\x9b1m"),
        ("one\ttwo\nthree", "one\ttwo\nthree"),
        ("größe 日本 👩‍🚒", "größe 日本 👩‍🚒"),
        ("abc\u202egnp.exe", "abc\\u202egnp.exe"),
        (b"caf\xe9".decode(errors="surrogateescape"), "caf\\udce9"),
    ],
)
def test_what_a_terminal_would_act_on_is_spelt_out(text, shown):
    assert visible(text) == shown
    assert visible(text).encode()
    assert visible(visible(text)) == shown


def test_markdown():
    assert markdown(f"<b>|{CLEAR}") == r"\<b\>\|\\x1b[2J"


def test_tables_take_brackets_and_colons_as_they_are(capsys):
    table = Table(title="[b]title")
    table.add_column("[red]")
    table.add_row("a[/b] :smile:")
    console(width=80).print(table)
    out = capsys.readouterr().out
    assert all(text in out for text in ("[b]title", "[red]", "a[/b] :smile:"))


def test_names_of_classes_are_visible_from_the_start():
    labels = LabelSet((f"a{CLEAR}", "b"), ((0, 0, 0), (1, 1, 1)), {0: 0, 1: 1})
    assert labels.names == ("a\\x1b[2J", "b")


@pytest.mark.filterwarnings("ignore")
def test_every_command_shows_hostile_names_as_text(tmp_path, segtrain, capfd):
    """Of classes and of files."""
    root = tmp_path / "own"
    rng = np.random.default_rng(0)
    for index in range(4):
        name = f"<img src=x onerror=alert({index})> [red]{CLEAR} $\\frac{{ {index}"
        write_pair(root, name, rng.integers(0, 4, (32, 32), dtype=np.uint8))
    classes = ["ground", "a[/b]|$\\frac{$", "<script>alert(1)</script>", f"c{CLEAR}"]
    (root / "classes.txt").write_text("\n".join(classes))
    chosen = [o for o in REPORTED if not o.startswith("dataset.source")]
    own = ["dataset=folder", f"dataset.source.root={root}", "dataset.num_workers=0"]

    def shown(*arguments):
        code, out, err = segtrain(*map(str, arguments))
        assert code == 0, err
        assert "\x1b" not in out + err
        return out

    run = tmp_path / "run"
    small = ["trainer.max_steps=1", "batch_size=2"]
    assert "a[/b]" in shown(*chosen, *own, *small, f"hydra.run.dir={run}")
    shown("prepare", *own[:2], "preview=true")
    shown("evaluate", f"run={run}")
    shown("predict", f"run={run}", f"input={root}/images", "output=found")
    shown("report", f"run={run}")
    (run / "results.json").write_text(
        (run / "results.json").read_text().replace('"quickstart"', '"<b>\\u001b[2J[red]"')
    )
    shown("table", "layout=runs", f"runs=[{run}]", "output=[t.md,t.csv,t.html]")
    pages = [*tmp_path.rglob("*.html"), tmp_path / "t.md", tmp_path / "t.csv"]
    assert len(pages) >= 4
    for page in pages:
        text = page.read_text()
        assert not any(raw in text for raw in ("<script>alert", "<img src=x", "\x1b")), page
    assert "\x1b" not in (run / "run.log").read_text()
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    (table,) = (event.tensor_proto.string_val[0].decode()
                for event in events.Tensors("val/per_class/text_summary"))  # fmt: skip
    assert "<script>" not in table.replace("\\<", "")
    assert "\x1b" not in table
