"""How processes end: with the one that started them, at a signal, and without waiting for ever."""

import contextlib
import ctypes
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

PARENT = "SEGTRAIN_PARENT"  # variable with the process that a command shall not outlive
STOPPED = 20  # seconds after which a loader worker that is stopped is ended
PREEMPTION_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)  # of clusters: save, and end
PR_SET_PDEATHSIG = 1  # of Linux's prctl
_temporary: list[str] = []  # folders to remove at signals


def end_with_parent(number: int = signal.SIGKILL, parent: int | None = None) -> None:
    """Lets this process get a signal when the one that started it ends, however that happens.

    Linux sends it by itself; elsewhere a thread watches.

    Args:
        number: of the signal. SIGKILL lets nothing more be written.
        parent: the process that started this one, where it is known not to have ended yet; None
            for the one that is the parent now.
    """
    parent = os.getppid() if parent is None else parent
    if not _ask_linux(number):
        threading.Thread(target=_watch_parent, args=(number, parent), daemon=True).start()
    if os.getppid() != parent:  # it ended before
        os.kill(os.getpid(), number)


def _ask_linux(number: int) -> bool:
    return sys.platform == "linux" and ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number) == 0


def _watch_parent(number: int, parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), number)


def end_with_caller() -> None:
    """`end_with_parent` of a command that another one has started, as `chain` does."""
    if PARENT in os.environ:
        end_with_parent(parent=int(os.environ.pop(PARENT)))


def end_at_signals() -> None:
    """Lets SIGINT and SIGTERM end this process at once, wherever it is, with 128 + their number.

    A command that has something to save puts handlers of its own in the place of these meanwhile.
    It is a thread that ends the process: the main one may be importing, or wait for other processes
    or for a disk, where Python's handlers are not called.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup, or in the background of a shell
            signal.signal(number, _leave)
    threading.Thread(target=_leave_at_signals, args=(read,), daemon=True).start()


def _leave(number: int, frame: FrameType | None) -> None:
    """Stands for the thread below."""


def _leave_at_signals(read: int) -> None:
    while received := os.read(read, 1):
        number = received[0]
        if signal.getsignal(number) is _leave:
            start = "\n" if os.isatty(2) else ""  # below the bar that may be there
            os.write(2, f"{start}segtrain: stopped by {signal.Signals(number).name}\n".encode())
            for folder in _temporary:
                shutil.rmtree(folder, ignore_errors=True)
            os._exit(128 + number)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """An empty folder that goes in the end, also where a signal ends this process at once."""
    with tempfile.TemporaryDirectory(prefix="segtrain-", ignore_cleanup_errors=True) as folder:
        _temporary.append(folder)
        try:
            yield Path(folder)
        finally:
            _temporary.remove(folder)


def end_children() -> None:
    """Kills what multiprocessing has started and would wait for at the end of this process.

    After an error nobody tells loader workers that all is over, and they ignore SIGTERM.
    """
    import multiprocessing

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler would raise
    for child in multiprocessing.active_children():
        child.kill()


@contextlib.contextmanager
def ending_stopped_workers(patience: int = STOPPED) -> Iterator[None]:
    """Kills loader workers that stay stopped while this process runs: it would wait for ever.

    PyTorch tells of a worker that was killed. Seconds count in which this process runs itself, so a
    job that is suspended and goes on as a whole is left alone.
    """
    seconds: dict[int, int] = {}

    def look() -> None:
        nonlocal seconds
        seconds = {pid: seconds.get(pid, 0) + 1 for pid in _stopped_workers()}
        for pid, stopped in seconds.items():
            if stopped >= patience:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    with repeating(look, 1.0):
        yield


@contextlib.contextmanager
def repeating(action: Callable[[], None], seconds: float) -> Iterator[None]:
    """Calls `action` again and again from a thread, `seconds` apart, as long as it is entered."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            action()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _stopped_workers() -> list[int]:
    """Children that are stopped and run this process's own program, as forked ones do."""
    found = []
    with contextlib.suppress(OSError):  # no Linux
        own = Path("/proc/self/cmdline").read_bytes()
        for children in Path("/proc/self/task").glob("*/children"):
            for pid in map(int, children.read_text().split()):
                with contextlib.suppress(OSError):
                    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                    if state == "T" and Path(f"/proc/{pid}/cmdline").read_bytes() == own:
                        found.append(pid)
    return found
