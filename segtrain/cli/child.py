"""A command in a process of its own, which gets the signals that this one gets."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import IO, NamedTuple

from segtrain.lifetime import PARENT

# What a child gets when its parent gets the key. A training saves on SIGTERM and SIGUSR1 only.
PASSED_ON = {
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGUSR1: signal.SIGUSR1,
    signal.SIGINT: signal.SIGTERM,
    signal.SIGHUP: signal.SIGTERM,
}


class Outcome(NamedTuple):
    """How a process ended: its exit code, never 0 after a signal, and the signal, or 0 for none."""

    code: int
    signal: int


def run_process(
    arguments: list[str],
    environment: dict[str, str] | None = None,
    prefix: str = "",
    log: Path | None = None,
) -> Outcome:
    """Runs a child process, which ends with this one, and hands signals on to it.

    Args:
        arguments: its command line.
        environment: its variables; None for this process's.
        prefix: begins each line of its output.
        log: file to which all that it prints is added. Without it and a prefix, the child writes by
            itself.
    """
    received: list[int] = []
    child: subprocess.Popen | None = None

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if child is not None:
            child.send_signal(PASSED_ON[number])

    old = {
        number: signal.signal(number, pass_on)
        for number in PASSED_ON
        if signal.getsignal(number) != signal.SIG_IGN  # nohup
    }
    piped = subprocess.PIPE if prefix or log else None
    try:
        # A process group of its own: Ctrl-C reaches this process alone, and the child as SIGTERM.
        child = subprocess.Popen(
            arguments, env={**(environment or os.environ), PARENT: str(os.getpid())},
            stdin=subprocess.DEVNULL, process_group=0, text=True, errors="replace",
            stdout=piped, stderr=piped,
        )  # fmt: skip
        if received:  # before there was a child
            child.send_signal(PASSED_ON[received[-1]])
        with ExitStack() as stack:
            file = stack.enter_context(log.open("a")) if log else None
            copies = [
                threading.Thread(target=_copy, args=(source, target, prefix, file))
                for source, target in ((child.stdout, sys.stdout), (child.stderr, sys.stderr))
                if source is not None
            ]
            for copy in copies:
                copy.start()
            code = child.wait()
            for copy in copies:
                copy.join()
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    last = received[-1] if received else 0
    code = 128 - code if code < 0 else code
    if last and code in (0, 128 + PASSED_ON[last]):  # it ended for the signal that this one got
        code = 128 + last
    return Outcome(code, last)


def _copy(source: IO[str], target: IO[str], prefix: str, file: IO[str] | None) -> None:
    for line in source:
        print(prefix + line, end="", file=target, flush=True)
        if file is not None:
            print(line, end="", file=file, flush=True)
