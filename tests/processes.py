"""Commands in processes of their own, which can be killed with all that they have started."""

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent


def start(*arguments: str, before: tuple[str, ...] = (), **variables: str) -> subprocess.Popen:
    """Python with these arguments, in a session of its own so that all of it can be killed."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.Popen(
        [*before, sys.executable, *arguments], env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def end(process: subprocess.Popen, timeout: int = 300) -> tuple[int, str, str]:
    """Exit code, stdout and stderr; kills the process with its children if it takes too long."""
    try:
        out, err = process.communicate(timeout=timeout)
    except BaseException:
        kill(process)
        raise
    return process.returncode, out, err


def kill(process: subprocess.Popen) -> None:
    """The process and all that it has started, which torchrun's children are too."""
    for pid in [process.pid, *children(process.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


def children(parent: int) -> list[int]:
    """Processes below one, nearest first."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            pid = int(path.parent.name)
            found += [pid, *children(pid)]
    return found


def listening(pid: int) -> set[str]:
    """Addresses on which a process and its children wait for connections, in hexadecimal."""
    own = set()
    for process in [pid, *children(pid)]:
        for link in Path(f"/proc/{process}/fd").glob("*"):
            with contextlib.suppress(OSError):
                own.add(os.readlink(link))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                found.add(fields[1].partition(":")[0])
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def on_two_processes(target: Callable[[int, int, Any], None]) -> dict[int, Any]:
    """What two new processes found, by rank.

    Args:
        target: called with its rank, a free port and the queue that takes (rank, what it found).
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=target, args=(rank, port, queue)) for rank in range(2)]
    for worker in workers:
        worker.start()
    found = dict(queue.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join()
    return found
