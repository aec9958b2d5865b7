"""What is measured: parts, made of cells, each of which is measured and written down alone."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

Figures = dict[str, float | int | str | bool | None]


class Skipped(Exception):  # noqa: N818 (nothing failed)
    """A cell cannot be measured on this machine; the message says what it lacks."""


@dataclass(frozen=True)
class Setting:
    """Where and how large cells are measured.

    Args:
        device: `cuda` or `cpu`.
        tiny: small networks and few rounds, which test the code and measure nothing.
        scratch: a folder for what a cell writes, which is deleted at the end.
        report: writes figures down before the cell is done, so that a cut does not lose them.
    """

    device: str
    tiny: bool
    scratch: Path = Path()
    report: Callable[[Figures], None] = field(default=lambda figures: None)

    @property
    def has_gpu(self) -> bool:
        return self.device == "cuda"

    def require_gpu(self, what: str) -> None:
        """Skips the cell on a CPU.

        Raises:
            Skipped: with `what` it is that only a GPU has.
        """
        if not self.has_gpu:
            raise Skipped(f"{what} needs a GPU")


@dataclass(frozen=True)
class Cell:
    """One row of the table.

    Args:
        name: within its part; with it a cell is found again when the command goes on.
        seconds: that it is expected to take on an H100, start of the process left out.
        measure: returns the figures, which are plain values.
        table: rows of the same kind stand in one table.
    """

    name: str
    seconds: float
    measure: Callable[[Setting], Figures]
    table: str = ""

    def limit(self, setting: Setting) -> float:
        """Seconds after which it is ended: slower cards and full disks are no failures."""
        return 30 + 4 * self.seconds if setting.has_gpu else 300


@dataclass(frozen=True)
class Part:
    """Cells that answer one question.

    Args:
        name: on the command line.
        question: heading of its table.
        minutes: that its cells may take together, before every other part has had its turn.
        module: has `cells(setting) -> list[Cell]`, the most valuable first.
    """

    name: str
    question: str
    minutes: float
    module: str
