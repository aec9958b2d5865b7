"""How many inputs all processes have finished."""

import time
from pathlib import Path
from typing import Self

from segtrain.terminal import Bar

LOOK = 0.2  # seconds between two looks


class Counting:
    """Counts the lines that the processes have written; a context manager.

    Args:
        parts: the files of the lines, which only grow.
        total: lines that there will be.
    """

    def __init__(self, parts: list[Path], total: int) -> None:
        self.total = total
        self.count = 0
        self._read = dict.fromkeys(parts, 0)  # bytes
        self._looked = time.monotonic()
        self._bar = Bar("predicting", total, "inputs")

    def __enter__(self) -> Self:
        self._bar.open()
        return self

    def __exit__(self, *reason: object) -> None:
        self.look(again=True)
        self._bar.close()

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
        self._bar.update(self.count)
