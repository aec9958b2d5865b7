"""Signals that end a command in order, after the piece of work that it is at."""

import signal
import threading
from types import FrameType
from typing import Self

from segtrain.cli import launch
from segtrain.errors import RunStopped
from segtrain.lifetime import PREEMPTION_SIGNALS


class Stop:
    """Keeps SIGTERM and SIGUSR1 until the command asks for them; a context manager.

    Args:
        advice: how the user goes on afterwards.
    """

    def __init__(self, advice: str) -> None:
        self.advice = advice
        self._signal = 0
        self._old_handlers: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in PREEMPTION_SIGNALS:
                self._old_handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *reason: object) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)

    @property
    def requested(self) -> bool:
        """Whether the command is to end."""
        return self._signal > 0

    def check(self, done: str = "") -> None:
        """Ends the command where it is to end; `done` says how far it has come.

        Raises:
            RunStopped: with the exit code 128 + the signal's number.
        """
        if not self.requested:
            return
        if launch.rank() > 0:  # rank zero says it for all
            raise SystemExit(128 + self._signal)
        name = signal.Signals(self._signal).name
        raise RunStopped(f"stopped by {name}{done}; {self.advice}", 128 + self._signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
