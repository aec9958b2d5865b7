"""How far a command is: bars that are redrawn on terminals, lines at intervals elsewhere.

All bars that are open stand together below what is printed meanwhile. A bar's lines go to the
logger `segtrain.progress`: into `run.log` always, to the console where no bar is shown (see
`segtrain.cli.logs`).
"""

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Self, TypeVar

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from segtrain.text import console, visible

lines = logging.getLogger("segtrain.progress")

Item = TypeVar("Item")

REDRAW = 0.1  # seconds between two drawings
FIRST_LINE = 10.0  # seconds after which a line tells of what has no bar
SAY = 30.0  # and between two lines
NARROWEST, WIDEST = 8, 40  # characters of the bar itself
GAP = "  "


def is_terminal() -> bool:
    """Whether bars are shown: on a terminal that can redraw, by the first of several processes.

    `NO_COLOR` and `TERM=dumb` ask for plain text.
    """
    return (
        sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
        and int(os.environ.get("RANK", "0")) == 0
    )


class Bar:
    """Counts what is done of one thing; a context manager.

    Args:
        what: is done, as "validating".
        total: how much there is to do; None where that is not known.
        unit: of what is counted, for the speed, as "images"; "" for no speed. "MB" are counted
            with a decimal place.
        done: how much of it was done before.
        has_lines: whether lines tell of it where it is not shown; False where something else does.

    Attributes:
        done: how much of it is done.
        note: what is said behind it, as "loss 0.43"; the first to go where the terminal is narrow.
        speed: units a second to be shown, where they are not what is counted; None for those.
    """

    def __init__(
        self,
        what: str,
        total: float | None,
        unit: str = "",
        done: float = 0,
        has_lines: bool = True,
    ) -> None:
        self.what = visible(what).replace("\n", " ")
        self.total = total
        self.unit = unit
        self.done = done
        self.note = ""
        self.speed: float | None = None
        self._has_lines = has_lines
        self._begun = self._said = time.monotonic()
        self._first: tuple[float, float] | None = None  # speeds are told from here: done, when

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *reason: object) -> None:
        self.close()

    def open(self) -> Self:
        """Puts the bar on the screen, where bars are shown."""
        screen.add(self)
        return self

    def close(self) -> None:
        """Takes the bar from the screen; a second time does nothing."""
        screen.remove(self)

    def update(self, done: float) -> None:
        """Says how much is done by now."""
        now = time.monotonic()
        self._first = self._first or (done, now)
        self.done = done
        screen.redraw()
        wait = SAY if self._said > self._begun else FIRST_LINE
        if self._has_lines and now > self._said + wait:
            self._said = now
            lines.info("%s", self.line())

    def parts(self) -> list[str]:
        """Count, remaining time, speed and note, as far as they are known."""
        now = time.monotonic()
        done, begun = self._first or (self.done, now)
        measured = (self.done - done) / max(now - begun, 1e-9)
        speed = measured if self.speed is None else self.speed
        left = ""
        if self.total and measured > 0:
            seconds = max(0.0, self.total - self.done) / measured
            left = f"{duration(seconds)} left"
        has_speed = self.unit and speed > 0
        return [self._count(), left, f"{speed:.1f} {self.unit}/s" if has_speed else "", self.note]

    def line(self) -> str:
        """The bar as a line of a log."""
        return GAP.join([f"{self.what:<11}", *filter(None, self.parts())])

    def _count(self) -> str:
        form = "{:.1f}" if self.unit == "MB" else "{:.0f}"
        unit = " MB" if self.unit == "MB" else ""
        if self.total is None:
            return form.format(self.done) + unit
        return f"{form.format(self.done)}/{form.format(self.total)}{unit}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One line: what is said as far as there is room, and the bar in the room that is left.

        Where there is not enough for all, the speed goes first, then the end of the note.
        """
        width = options.max_width - 3  # a terminal writes ^C behind it, which shall not wrap
        count, left, speed, note = self.parts()
        notes = note.split(GAP) if note else []
        name = self.what
        if len(name) > (longest := max(NARROWEST, width // 3)):
            name = name[: longest - 1] + "…"
        said = [part for part in (count, left, speed, *notes) if part]

        def needed() -> int:
            return len(GAP.join([name, *said])) + len(GAP) + NARROWEST

        for part in (speed, *reversed(notes[1:]), left, *notes[:1]):
            if needed() > width and part in said:
                said.remove(part)
        room = width - needed() + NARROWEST
        line = Table.grid(padding=(0, len(GAP), 0, 0))
        cells = [Text(name, style="bold", no_wrap=True, overflow="crop")]
        if room >= NARROWEST:
            cells.append(ProgressBar(self.total, self.done, width=min(room, WIDEST)))
        cells += [Text(part, no_wrap=True, overflow="crop") for part in said]
        line.add_row(*cells)
        yield line


class Screen:
    """The bars that are open, below all that is printed."""

    def __init__(self) -> None:
        self._bars: list[Bar] = []
        self._live: Live | None = None
        self._drawn = 0.0

    @property
    def is_shown(self) -> bool:
        """Whether there is a bar on the terminal now."""
        return self._live is not None

    def add(self, bar: Bar) -> None:
        """Shows one more bar, where bars are shown."""
        if not is_terminal():
            return
        self._bars.append(bar)
        if self._live is None:
            # No thread redraws it: a process that is forked meanwhile would inherit its locks.
            self._live = Live(console=console(), auto_refresh=False, transient=True)
            self._live.start()
            # Whatever ends this process, the terminal shall have its cursor.
            self._live.console.show_cursor(True)
        self.redraw(now=True)

    def remove(self, bar: Bar) -> None:
        """Takes a bar away, if it is there."""
        if bar not in self._bars:
            return
        self._bars.remove(bar)
        if self._bars:
            self.redraw(now=True)
        elif self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def redraw(self, now: bool = False) -> None:
        """Draws all bars, if the last time is long enough ago."""
        if self._live is not None and (now or time.monotonic() > self._drawn + REDRAW):
            self._drawn = time.monotonic()
            self._live.update(Group(*self._bars), refresh=True)

    def say(self, line: str) -> None:
        """Prints a line above the bars there are; the terminal wraps it, not this program."""
        if self._live is not None:
            self._live.console.print(Text(line), soft_wrap=True)


screen = Screen()


def duration(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 1:23:45."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def track(items: Iterable[Item], total: int, what: str, unit: str = "") -> Iterator[Item]:
    """The items, with a bar that counts them.

    Args:
        items: anything.
        total: how many they are.
        what: see `Bar`.
        unit: see `Bar`.
    """
    with Bar(what, total, unit) as bar:
        for number, item in enumerate(items, 1):
            yield item
            bar.update(number)
