"""The queue: what is missing is measured, the most valuable first, until the time is used up."""

import contextlib
import importlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Self

from benchmarks.gpu.cell import Cell, Part, Setting
from benchmarks.gpu.journal import MACHINE, UNFINISHED, Journal
from benchmarks.gpu.machine import describe
from benchmarks.gpu.table import write_table

JOURNAL, TABLE, LOG = "gpu.jsonl", "gpu.md", "gpu.log"
ROOT = Path(__file__).parents[2]
START = 180  # seconds that a worker may take to import everything
LEAST = 2  # seconds left under which no cell is begun


class Stopped(Exception):  # noqa: N818
    """A signal ended the command."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass
class Options:
    """Of the command line.

    Args:
        minutes: after which the command ends.
        out: folder of the journal, the table and the log.
        only: names of parts, or of cells as `part/name`, of which the beginning is enough; empty
            for all.
        device: `cuda` or `cpu`.
        tiny: see `Setting`.
        again: whether cells that were skipped or failed are tried again.
    """

    minutes: float
    out: Path
    only: Sequence[str] = ()
    device: str = "cuda"
    tiny: bool = False
    again: bool = False
    command: str = "python -m benchmarks.gpu"
    started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.started + 60 * self.minutes - time.monotonic()

    def chooses(self, part: str, cell: str) -> bool:
        """Whether a cell is asked for."""
        return not self.only or any(
            o == part or ("/" in o and f"{part}/{cell}".startswith(o)) for o in self.only
        )


def run(options: Options, parts: Sequence[Part]) -> int:
    """Measures what is missing, and returns the exit code."""
    options.out.mkdir(parents=True, exist_ok=True)
    journal = Journal(options.out / JOURNAL)
    kind = {"device": options.device, "tiny": options.tiny}
    for machine in journal.machines():
        if any(machine[key] != value for key, value in kind.items()):
            print(f"{journal.path} holds figures of device={machine['device']} "
                  f"tiny={machine['tiny']}; give another folder", file=sys.stderr)  # fmt: skip
            return 2
    machine = {**kind, **describe(options.device), "command": options.command}
    journal.append({MACHINE: machine, "when": now()})
    handlers = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    scratch = Path(tempfile.mkdtemp(prefix="segtrain-gpu-"))
    expected: dict[str, list[Cell]] = {}
    code = 0
    try:
        setting = Setting(options.device, options.tiny, scratch)
        for part in parts:
            if not options.only or any(o.partition("/")[0] == part.name for o in options.only):
                expected[part.name] = importlib.import_module(part.module).cells(setting)
        for bounded in (True, False):  # each part up to its own limit, then what is left of each
            for part in parts:
                if part.name in expected:
                    limit = 60 * part.minutes if bounded else float("inf")
                    run_part(part, expected, options, setting, journal, limit)
    except Stopped as error:
        print(f"stopped by {error}; the same command goes on", file=sys.stderr)
        code = 128 + error.number
    finally:
        for number in handlers:
            signal.signal(number, signal.SIG_IGN)  # the table is written whatever comes
        write(options, journal, expected)
        shutil.rmtree(scratch, ignore_errors=True)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    print(f"table       {options.out / TABLE}")
    return code


def run_part(
    part: Part,
    expected: dict[str, list[Cell]],
    options: Options,
    setting: Setting,
    journal: Journal,
    limit: float,
) -> None:
    """Measures the cells of one part that are missing, for `limit` seconds at most."""
    done, started = journal.done(options.again), time.monotonic()
    tried = {  # again means once in each run of the command
        (e["part"], e["cell"]) for e in journal.entries()
        if "cell" in e and e["run"] == options.started and e["status"] != UNFINISHED
    }  # fmt: skip
    with Worker(part, options, setting) as worker:
        for cell in expected[part.name]:
            key = (part.name, cell.name)
            used = time.monotonic() - started
            least = cell.seconds if setting.has_gpu else LEAST
            if key in done | tried or not options.chooses(*key):
                continue
            if options.left < max(LEAST, least) or (used and used + least > limit):
                continue
            print(f"{part.name:12}{cell.name} ...", flush=True)
            entry = {"part": part.name, "cell": cell.name, "table": cell.table,
                     "run": options.started, "card": journal.machines()[-1]["card"],
                     "command": command_of(options, part, cell)}  # fmt: skip

            def keep(figures: dict, entry: dict = entry) -> None:
                journal.append(entry | {"status": UNFINISHED, "figures": figures, "when": now()})

            outcome = worker.measure(cell, keep)
            if outcome is None:
                return  # the time is used up; what it has found is in the journal
            journal.append(entry | {"figures": {}, **outcome, "when": now()})
            reason = f": {outcome['reason']}" if outcome.get("reason") else ""
            print(f"{'':12}{outcome['status']}{reason}", flush=True)
            write(options, journal, expected)


def write(options: Options, journal: Journal, expected: dict[str, list[Cell]]) -> None:
    """The table of all that is known."""
    names = {part: [cell.name for cell in cells] for part, cells in expected.items()}
    write_table(options.out / TABLE, journal, names)


def command_of(options: Options, part: Part, cell: Cell) -> str:
    """What measures this cell alone."""
    tiny = " --tiny" * options.tiny
    device = "" if options.device == "cuda" else f" --device {options.device}"
    return f"python -m benchmarks.gpu --out FOLDER{device}{tiny} --only '{part.name}/{cell.name}'"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


class Worker:
    """A process for the cells of a part, and a new one after each that did not go well.

    Args:
        part: whose cells are measured.
        options: of the command line.
        setting: for the cells.
    """

    def __init__(self, part: Part, options: Options, setting: Setting) -> None:
        self.part = part
        self.options = options
        self.setting = setting
        self.process: subprocess.Popen | None = None
        self.messages: queue.Queue[dict] = queue.Queue()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def measure(self, cell: Cell, keep: Callable[[dict], None]) -> dict | None:
        """The outcome of a cell; None where the time of the command was over before it was done.

        Args:
            cell: to be measured.
            keep: takes all figures so far, as often as the cell reports some.
        """
        figures: dict = {}
        if self.process is None:
            self.start()
            limit = START
            started = self._wait(min(limit, self.options.left), lambda found: None)
            if "ready" not in started:
                return self._given_up(started, limit, figures)
        self.process.stdin.write(cell.name + "\n")
        self.process.stdin.flush()

        def add(found: dict) -> None:
            figures.update(found)
            keep(figures)

        limit = cell.limit(self.setting)
        outcome = self._wait(min(limit, self.options.left), add)
        if "status" not in outcome:
            return self._given_up(outcome, limit, figures)
        if outcome["status"] not in ("ok", "skipped"):
            self.end()  # memory may be in pieces, or the device's context lost
        return {**outcome, "figures": figures | outcome.get("figures", {})}

    def _given_up(self, outcome: dict, limit: float, figures: dict) -> dict | None:
        """What is said of a cell whose process is no more, or has to be ended."""
        code = outcome.get("code")
        self.end()
        if code is None:
            if self.options.left <= 0:
                return None
            reason = f"more than {limit:.0f} s"
            return {"status": "timed out", "reason": reason, "figures": figures}
        if code == -signal.SIGKILL:  # as Linux ends a process when the host's memory is used up
            reason = "the process was killed, as for lack of the host's memory"
            return {"status": "out of memory", "reason": reason, "figures": figures}
        reason = f"the process ended with {code}; see {LOG}"
        if code < 0:
            reason = f"the process ended by {signal.Signals(-code).name}; see {LOG}"
        return {"status": "failed", "reason": reason, "figures": figures}

    def _wait(self, seconds: float, add: Callable[[dict], None]) -> dict:
        """The next message but figures; `code` of a process that ended; nothing after the time."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                message = self.messages.get(timeout=min(left, 0.2))
                if "status" in message or "ready" in message:
                    return message
                add(message["figures"])
                continue
            if self.process.poll() is not None and self.messages.empty():
                return {"code": self.process.returncode}
        return {}

    def start(self) -> None:
        """Starts the process, in a session of its own so that all of it can be ended."""
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {
            **os.environ,
            "PYTHONPATH": path,
            "SEGTRAIN_DATA": os.path.abspath(os.environ.get("SEGTRAIN_DATA", "data")),
            "SEGTRAIN_CACHE": str(self.setting.scratch / "cache"),
            "NO_ALBUMENTATIONS_UPDATE": "1",
        }
        command = [sys.executable, "-m", "benchmarks.gpu.worker", self.part.module,
                   "--device", self.options.device, "--scratch", str(self.setting.scratch),
                   *(["--tiny"] if self.options.tiny else [])]  # fmt: skip
        self.messages = queue.Queue()
        with (self.options.out / LOG).open("a") as log:
            self.process = subprocess.Popen(
                command, env=environment, cwd=self.setting.scratch, start_new_session=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        listener = threading.Thread(
            target=listen, args=(self.process.stdout, self.messages), daemon=True
        )
        listener.start()

    def end(self) -> None:
        """Ends the process and all that it has started."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process = None


def listen(lines: IO[str], messages: queue.Queue[dict]) -> None:
    """Hands on what a worker says, from a thread of its own."""
    for line in lines:
        with contextlib.suppress(ValueError):  # half a line of one that was killed
            messages.put(json.loads(line))
