import io
import logging
import os
import pty
import re
import subprocess
import sys
import time

import pytest
from rich.console import Console

from segtrain import terminal
from segtrain.terminal import Bar, duration, is_terminal

PROGRAM = """
import logging, time
from pathlib import Path
from segtrain.cli.logs import configure_logging
from segtrain.terminal import FIRST_LINE, SAY, track
import segtrain.terminal
segtrain.terminal.FIRST_LINE = segtrain.terminal.SAY = 0.05
configure_logging(Path("run.log"))
for number in track(range(4), 4, "a[red]b\\x1b[2J", "images"):
    time.sleep(0.12)
    if number == 2:
        logging.getLogger("segtrain").info("said between")
logging.getLogger("segtrain").info("said at the end")
"""


def on_terminal(environment: dict[str, str]) -> str:
    """What the program writes to a terminal."""
    ours, theirs = pty.openpty()
    variables = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    child = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=theirs, stderr=theirs,
                             env=variables | environment)  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 4096):
            shown += block
    except OSError:  # how a terminal ends
        pass
    os.close(ours)
    assert child.wait() == 0, shown
    return shown.decode()


def test_a_bar_is_redrawn_on_a_terminal_and_the_log_gets_lines(tmp_path):
    shown = on_terminal({"TERM": "xterm", "COLUMNS": "80"})
    assert "━" in shown
    assert "3/4" in shown
    assert shown.index("said between") < shown.index("said at the end")
    assert "\x1b[2J" not in shown  # a name is text
    assert "a[red]b\\x1b[2J" in shown
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")  # the cursor is there again
    written = (tmp_path / "run.log").read_text()
    assert "3/4" in written
    assert "\x1b" not in written
    assert "━" not in written


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}])
def test_plain_lines_on_terminals_that_want_them(environment):
    shown = on_terminal(environment)
    assert "\x1b" not in shown
    assert "━" not in shown
    assert "3/4" in shown


def test_plain_lines_in_a_pipe():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True,
                          check=True)  # fmt: skip
    assert "\x1b" not in done.stdout
    assert re.search(r"3/4 .* images/s", done.stdout)
    assert "said at the end" in done.stdout


def test_only_the_first_process_has_bars(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert is_terminal()
    monkeypatch.setenv("RANK", "1")
    assert not is_terminal()


@pytest.mark.parametrize("width", [20, 40, 80, 120])
def test_a_bar_is_one_line_of_any_terminal(width, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    bar = Bar("training", 12000, "images", has_lines=False)
    bar.note = "loss 0.123  mIoU 45.67%"
    bar.update(100)
    bar.update(200)
    drawn = io.StringIO()
    Console(file=drawn, width=width, force_terminal=False).print(bar)
    (line,) = drawn.getvalue().splitlines()
    assert len(line) < width
    assert "200/12000" in line or width == 20
    assert ("left" in line) == (width >= 80)
    assert ("images/s" in line) == (width == 120)


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.4, "0:07"), (754, "12:34"), (5025, "1:23:45")]
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_what_goes_quickly_says_nothing(caplog):
    with caplog.at_level(logging.INFO, terminal.lines.name):
        assert list(terminal.track(range(3), 3, "counting")) == [0, 1, 2]
    assert caplog.messages == []
