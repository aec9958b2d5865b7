"""What of a results folder is finished: a line of JSON for each input, and the settings.

`manifest.jsonl` and `predict.yaml` stay. While a prediction runs, `manifest.parts/` holds what is
left to do, and what each process has done of it. A line is written after all files of an input, so
a kill at any moment costs the inputs that were in work, and no more.
"""

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

import yaml

from segtrain.cli.inputs import MANIFEST, Input
from segtrain.errors import UserError
from segtrain.foreign import read_record
from segtrain.writing import complete, write_text

SHOWN = 20  # inputs of which the end says what they show, or why they failed
BLOCK = 256  # lines whose files one thread looks for
THREADS = 16  # that look for files; a network file system takes its time for each
PATIENCE = 10  # seconds, for processes that a kill has left behind


class Outcome(NamedTuple):
    """What came of the inputs that were left to do."""

    predicted: int
    failed: int
    said: list[str]  # of the first predicted ones what they show
    skipped: list[str]  # of the first failed ones why


class Manifest:
    """Inputs, results and settings of one results folder, for one of several processes.

    Args:
        output: the results folder, which is there.
        rank: of this process, which writes `part`.
        processes: how many share the work.
    """

    def __init__(self, output: Path, rank: int, processes: int) -> None:
        self.output = output
        self.rank = rank
        self.processes = processes
        self.file = output / f"{MANIFEST}.jsonl"
        self.settings_file = output / "predict.yaml"
        self.folder = output / f"{MANIFEST}.parts"
        self.plan = self.folder / "inputs.jsonl"
        self.parts = [self.folder / f"{number}.jsonl" for number in range(processes)]
        self._lock: IO | None = None

    @property
    def part(self) -> Path:
        """Where this process says what it has done."""
        return self.parts[self.rank]

    def lock(self) -> None:
        """Keeps other commands from writing here until this process ends.

        Raises:
            UserError: one does already.
        """
        self._lock = open(self.output / f".{MANIFEST}.lock", "a+")  # noqa: SIM115
        kind = fcntl.LOCK_SH if self.rank else fcntl.LOCK_EX
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.lockf(self._lock, kind | fcntl.LOCK_NB)
                return
            except (BlockingIOError, PermissionError):
                if time.monotonic() > deadline:
                    raise UserError(f"output={self.output}: another process is writing results "
                                    "there; wait for it, or choose another") from None  # fmt: skip
                time.sleep(0.1)
            except OSError:  # a file system without locks
                return

    def share_lock(self) -> None:
        """Lets the other processes of this command hold the lock too."""
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.lockf(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def unlock(self) -> None:
        """Lets other commands write here."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def start(self, inputs: dict[str, str], settings: dict, overwrite: bool) -> tuple[int, int]:
        """Sets down what is left to do, for all processes.

        An input is finished when a line says so, all of its files are there, and it has not changed
        since. The others are done again, failed ones too.

        Args:
            inputs: stem -> file; those that are finished are taken out.
            settings: what the results depend on, and `network`, where it comes from.
            overwrite: whether nothing counts as finished.

        Returns:
            How many are left, and how many are finished.

        Raises:
            UserError: the folder holds results of other settings.
        """
        given = len(inputs)
        if overwrite:
            self.file.unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            self._require_same(settings)
            self._keep_finished(inputs)
        write_text(self.settings_file, yaml.safe_dump(settings, sort_keys=False))
        shutil.rmtree(self.folder, ignore_errors=True)
        write_text(self.plan, "".join(json.dumps(pair) + "\n" for pair in inputs.items()))
        return len(inputs), given - len(inputs)

    def share(self) -> Iterator[Input]:
        """This process's inputs, of w processes every w-th from its number on."""
        with self.plan.open() as file:
            for line in itertools.islice(file, self.rank, None, self.processes):
                stem, path = json.loads(line)
                yield Input(stem, Path(path))

    def share_size(self) -> int:
        """How many inputs `share` gives."""
        with self.plan.open() as file:
            return sum(1 for _ in itertools.islice(file, self.rank, None, self.processes))

    def finish(self) -> Outcome:
        """Joins the parts of all processes to the manifest, in the order of the inputs."""
        counts = {"ok": 0, "failed": 0}
        messages: dict[str, list[str]] = {"ok": [], "failed": []}
        with complete(self.file) as partial, partial.open("wb") as new:
            if self.file.is_file():
                with self.file.open("rb") as old:
                    shutil.copyfileobj(old, new)
            rows = itertools.zip_longest(*map(_entries, self.parts))
            for line, entry in filter(None, itertools.chain.from_iterable(rows)):
                new.write(line)
                status = entry["status"]
                counts[status] += 1
                if len(messages[status]) < SHOWN:
                    messages[status].append(entry["message"])
        shutil.rmtree(self.folder, ignore_errors=True)
        return Outcome(*counts.values(), *messages.values())

    def _require_same(self, settings: dict) -> None:
        """Raises a UserError where results of other settings are in the folder."""
        if not self.settings_file.is_file():
            return
        try:  # what it names is compared, not built
            stored = read_record(self.settings_file, {"sha256": str}, trust_code=True)
        except UserError as error:
            raise UserError(f"{error}; overwrite=true predicts anew") from None
        own = yaml.safe_load(yaml.safe_dump(settings))
        other = [key for key in (own | stored) if key != "network"
                 and own.get(key) != stored.get(key)]  # fmt: skip
        if other:
            differences = "; ".join(
                f"{'network' if key == 'sha256' else key}: {_shown(stored, key)} there, "
                f"{_shown(own, key)} now" for key in other
            )  # fmt: skip
            raise UserError(
                f"output={self.output} holds results of other settings ({differences}); choose "
                "another folder, or overwrite=true to predict anew"
            )

    def _keep_finished(self, inputs: dict[str, str]) -> None:
        """Takes finished inputs out, and writes their lines, and other inputs', as manifest."""
        stored = [self.file, *sorted(self.folder.glob("[0-9]*.jsonl"))]
        entries = itertools.chain.from_iterable(map(_entries, stored))
        blocks = iter(lambda: list(itertools.islice(entries, BLOCK)), [])
        kept = set()
        with (
            complete(self.file) as partial, partial.open("wb") as new,
            ThreadPoolExecutor(THREADS) as pool,
        ):  # fmt: skip
            while work := list(itertools.islice(blocks, THREADS)):
                done = pool.map(lambda block: self._valid(block, inputs), work)
                for line, entry in itertools.chain.from_iterable(done):
                    if entry["name"] not in kept:
                        kept.add(entry["name"])
                        new.write(line)
                        if entry["status"] == "ok":
                            inputs.pop(entry["name"], None)

    def _valid(
        self, block: list[tuple[bytes, dict]], inputs: dict[str, str]
    ) -> list[tuple[bytes, dict]]:
        """Those of some lines that still hold, or are of other inputs."""
        return [pair for pair in block if self._holds(pair[1], inputs.get(pair[1]["name"]))]

    def _holds(self, entry: dict, path: str | None) -> bool:
        if entry["status"] == "failed":
            return path is None
        same = path is None or (
            os.path.abspath(path) == entry["input"]
            and stamp(path) == {key: entry.get(key) for key in ("bytes", "modified")}
        )
        return same and all(
            stamp(os.path.join(self.output, name))["bytes"] for name in entry["outputs"]
        )


def stamp(path: str | Path) -> dict[str, float | None]:
    """Size and time of a file, which tell whether it has changed; None of one that is gone."""
    try:
        found = os.stat(path)
    except OSError:
        return {"bytes": None, "modified": None}
    return {"bytes": found.st_size, "modified": found.st_mtime}


def _entries(path: Path) -> Iterator[tuple[bytes, dict]]:
    """The lines of a file that are whole, and what each says.

    A kill, a full disk or a broken copy may have cut it anywhere; what a line of it said is then
    not known, and its input is done again.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if line.endswith(b"\n") and _is_entry(entry):
                yield line, entry


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and entry.get("status") in ("ok", "failed")
        and all(isinstance(entry.get(key), str) for key in ("name", "input", "message"))
        and isinstance(entry.get("outputs"), list)
        and all(isinstance(name, str) for name in entry["outputs"])
    )


def _shown(settings: dict, key: str) -> str:
    value = settings.get(key)
    if key == "sha256":
        return f"{settings.get('network')} ({str(value)[:8]})"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
