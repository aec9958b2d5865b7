"""How many inputs all processes have finished: a bar on terminals, a line a minute elsewhere."""

import logging
import sys
import time
from pathlib import Path
from typing import Self

from rich.progress import Progress

logger = logging.getLogger("segtrain")

LOOK = 0.5  # seconds between two looks
SAY = 60.0  # and between two lines


class Counting:
    """Counts the lines that the processes have written; a context manager.

    Args:
        parts: the files of the lines, which only grow.
        total: lines that there will be; no more than one needs no bar.
    """

    def __init__(self, parts: list[Path], total: int) -> None:
        self.total = total
        self.count = 0
        self._read = dict.fromkeys(parts, 0)  # bytes
        self._started = self._looked = self._said = time.monotonic()
        self._bar = Progress(disable=total < 2 or not sys.stdout.isatty())
        self._task = self._bar.add_task("predicting", total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self.look(again=True)
        self._bar.stop()

    def look(self, again: bool = False) -> None:
        """Counts what is new, `again` or if the last look is long enough ago."""
        now = time.monotonic()
        if not again and now < self._looked + LOOK:
            return
        self._looked = now
        for part, place in self._read.items():
            if part.is_file():
                with part.open("rb") as file:
                    file.seek(place)
                    new = file.read()
                self.count += new.count(b"\n")
                self._read[part] += len(new)
        self._bar.update(self._task, completed=self.count)
        if self._bar.disable and self.count and now > self._said + SAY:
            self._said = now
            logger.info("predicting  %d of %d, %.1f/s", self.count, self.total,
                        self.count / (now - self._started))  # fmt: skip
