"""The JSON Lines file that everything is appended to at once; a cut at any second loses nothing."""

import json
import math
import os
from pathlib import Path

FINAL = ("ok", "skipped", "failed", "out of memory", "timed out")
UNFINISHED = "unfinished"  # the last words of a cell that was cut
MACHINE = "machine"  # the entry at each start, in place of a status


class Journal:
    """Entries on disk.

    Args:
        path: of the file, which may be there already.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, entry: dict) -> None:
        """Writes one line, and waits until it is on the disk."""
        line = json.dumps(_plain(entry), allow_nan=False)
        torn = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("a") as file:
            # A machine that lost power may have left half a line, which the next must not join.
            file.write(("\n" if torn and self.path.stat().st_size else "") + line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def entries(self) -> list[dict]:
        """All of them, in order; a line that was cut off is left out."""
        found = []
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def machines(self) -> list[dict]:
        """The machine of each start."""
        return [entry[MACHINE] for entry in self.entries() if MACHINE in entry]

    def cells(self) -> dict[tuple[str, str], dict]:
        """The last word on each cell, by part and name."""
        return {(e["part"], e["cell"]): e for e in self.entries() if "cell" in e}

    def done(self, again: bool) -> set[tuple[str, str]]:
        """Cells that need not be measured.

        Args:
            again: whether what was not measured, for whatever reason, is to be tried again.
        """
        enough = ("ok",) if again else FINAL
        return {key for key, entry in self.cells().items() if entry["status"] in enough}


def _plain(value: object) -> object:
    """JSON has no NaN and no infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
