"""What became of the jobs of a sweep: `sweep.json` in its folder, `job.json` in each job's.

A job writes its own record; the ledger is collected from them, so that no process waits.
"""

import json
import os
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table
from rich.text import Text

from segtrain.errors import UserError
from segtrain.headlines import HEADLINES, TITLES
from segtrain.text import console, visible
from segtrain.writing import write_json

LEDGER = "sweep.json"
RECORD = "job.json"
TRIAL = "trial.json"  # of a job that a search chose: where it reports to
SCHEMA = 1
HEARTBEAT = 15  # seconds between signs of life of a job
SILENCE = 120  # seconds after which a job on another machine is taken for dead
INTERRUPTED = 128  # exit codes from here on are signals', which mean the whole sweep
STOP = "stop"  # file in the sweep's folder that keeps further jobs from being begun
ENDED = ("done", "pruned")  # never run again
STYLES = {"done": "green", "failed": "red", "pruned": "yellow", "left": "dim"}


@dataclass(frozen=True)
class Job:
    """One job: its number, which is its folder's name, and its overrides."""

    number: int
    overrides: list[str]


class Ledger:
    """The jobs of one sweep and what became of them.

    Args:
        folder: of the sweep.
        command: that every job runs.
        overrides: of the sweep as it was started, without its folder.
        swept: keys in which the jobs differ.
        jobs: by number.
    """

    def __init__(
        self, folder: Path, command: str, overrides: list[str], swept: list[str], jobs: list[Job]
    ) -> None:
        self.folder = folder
        self.command = command
        self.overrides = overrides
        self.swept = swept
        self.jobs = {job.number: job for job in jobs}

    @classmethod
    def read(cls, folder: Path) -> "Ledger":
        """The ledger of a sweep that was begun.

        Raises:
            UserError: there is none in the folder, or it is damaged.
        """
        file = folder / LEDGER
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            jobs = [Job(entry["job"], entry["overrides"]) for entry in content["jobs"]]
            return cls(folder, content["command"], content["overrides"], content["swept"], jobs)
        except FileNotFoundError:
            raise UserError(f"{file} does not exist; give the folder of a sweep, "
                            "outputs/multirun/<experiment>/<date_time>") from None  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{file}: not the ledger of a sweep ({error!r})") from None

    def job_folder(self, number: int) -> Path:
        """Where a job's run lies."""
        return self.folder / str(number)

    def state(self, number: int) -> str:
        """done, failed, pruned, stopped (by a signal), running or left (to do, or interrupted)."""
        folder = self.job_folder(number)
        record = read_record(folder)
        if record["state"] == "running" and not is_alive(folder, record):
            return "left"
        return record["state"]

    def entries(self) -> list[dict]:
        """One per job as `sweep.json` has them, best first, then those without a score."""
        found = []
        for number, job in sorted(self.jobs.items()):
            record = read_record(self.job_folder(number))
            found.append({
                "job": number,
                "state": self.state(number),
                "validation": record["validation"],
                **score(self.job_folder(number)),
                "overrides": job.overrides,
                "message": record["message"],
            })  # fmt: skip
        return sorted(found, key=rank)

    def write(self) -> None:
        """Collects the records anew."""
        write_json(self.folder / LEDGER, {
            "schema": SCHEMA,
            "command": self.command,
            "overrides": self.overrides,
            "swept": self.swept,
            "jobs": self.entries(),
        }, own_name())  # fmt: skip

    def print(self) -> None:
        """A table of all jobs, best first."""
        entries = self.entries()
        counts = ", ".join(
            f"{sum(entry['state'] == state for entry in entries)} {state}"
            for state in dict.fromkeys(entry["state"] for entry in entries)
        )
        print(f"sweep       {self.folder}: {counts}", flush=True)
        table = Table()
        metric = next((entry["metric"] for entry in entries if entry["metric"]), None)
        split = next((entry["split"] for entry in entries if entry["split"]), None)
        name = TITLES.get(metric, metric)
        table.add_column("job", justify="right")
        table.add_column("state")
        for key in self.swept:
            table.add_column(key, overflow="fold")
        trains = any(entry["validation"] is not None for entry in entries)
        if trains:
            table.add_column(f"best val {name or 'score'} %", justify="right")
        if metric:
            table.add_column(f"{split} {name} %", justify="right")
        for entry in entries:
            values = chosen(entry["overrides"])
            cells = [rounded(values.get(key, "")) for key in self.swept]
            cells += [percent(entry["validation"])] * trains
            cells += [percent(entry["value"])] * bool(metric)
            state = entry["state"]
            shown = Text(state, STYLES.get(state, "cyan"))
            table.add_row(str(entry["job"]), shown, *cells)
        console().print(table)
        for entry in entries:
            if entry["state"] != "done" and entry["message"]:
                print(visible(f"job {entry['job']}: {entry['message']}"))


def swept_values(job_folder: Path) -> dict[str, float | str]:
    """The values of a job's keys in which the jobs of its sweep differ; empty outside of sweeps."""
    if not (job_folder.parent / LEDGER).is_file():
        return {}
    ledger = Ledger.read(job_folder.parent)
    job = ledger.jobs.get(int(job_folder.name)) if job_folder.name.isdigit() else None
    if job is None:
        return {}
    values = chosen(job.overrides)
    return {key: number_or_text(values[key]) for key in ledger.swept if key in values}


def chosen(overrides: list[str]) -> dict[str, str]:
    """The values of overrides by their keys."""
    return dict(override.lstrip("+").partition("=")[::2] for override in overrides)


def number_or_text(value: str) -> float | str:
    """What an override's value stands for."""
    try:
        return float(value)
    except ValueError:
        return value


def rank(entry: dict) -> tuple:
    """Sorts entries best first: by the validation, as checkpoints are, where there is one."""
    found = entry["value"] if entry["validation"] is None else entry["validation"]
    ended = entry["state"] == "done" and found is not None
    return (not ended, -found if ended else 0.0, entry["job"])


def score(folder: Path) -> dict:
    """Headline metric of a run's `results.json`, its value and split; None where there is none."""
    try:
        results = json.loads((folder / "results.json").read_text())
        metric = HEADLINES[results["task"]]
        value, split = results["metrics"][metric], results["split"]
    except (OSError, ValueError, KeyError, TypeError):
        return {"metric": None, "value": None, "split": None}
    return {"metric": metric, "value": value, "split": split}


def read_record(folder: Path) -> dict:
    """A job's `job.json`; what a job that was never begun would have, where there is none."""
    empty = {"state": "left", "exit_code": None, "message": None, "process": None, "host": None,
             "started": None, "ended": None, "validation": None}  # fmt: skip
    try:
        return empty | json.loads((folder / RECORD).read_text())
    except (OSError, ValueError, TypeError):  # cut off, or no dictionary
        return empty


def write_record(folder: Path, **changes: object) -> None:
    """Changes entries of a job's record."""
    write_json(folder / RECORD, read_record(folder) | changes, own_name())


def own_name() -> str:
    """Tells this process from all that may write a record at the same time."""
    return f"{socket.gethostname()}-{os.getpid()}"


def is_alive(folder: Path, record: dict) -> bool:
    """Whether a running job's process still runs; on other machines, whether it wrote lately."""
    if record["host"] != socket.gethostname():
        return time.time() - (folder / RECORD).stat().st_mtime < SILENCE
    if record["process"] == os.getpid():
        return False  # this process would know
    try:
        os.kill(record["process"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    status = Path(f"/proc/{record['process']}/stat")
    return not (status.is_file() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def now() -> str:
    """The time as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def rounded(value: str) -> str:
    """A real number to four digits, anything else as it is."""
    try:
        return value if value.lstrip("-").isdigit() else f"{float(value):.4g}"
    except ValueError:
        return value


def percent(value: float | None) -> str:
    """A fraction for the table."""
    return "" if value is None else f"{100 * value:.2f}"
