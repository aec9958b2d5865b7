"""Runs a sweep: its jobs through Hydra's launcher, its ledger, and the signals that end it."""

import contextlib
import fcntl
import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from types import FrameType

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from segtrain.configuration.schema import Sweep
from segtrain.configuration.validation import validate
from segtrain.errors import RunStopped, UserError
from segtrain.hardware import cores
from segtrain.sweep.best import write_best
from segtrain.sweep.ledger import (
    ENDED,
    INTERRUPTED,
    LEDGER,
    STOP,
    Job,
    Ledger,
    read_record,
)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
PATIENCE = 60  # seconds that jobs get to save when the sweep is ended


class Sweeping:
    """The jobs of one sweep, as far as they are known, and the means to run them.

    Args:
        context, task_function, config: Hydra's.
        overrides: of the command line, without Hydra's own.

    Attributes:
        folder: of the sweep.
        ledger: of its jobs; that of the sweep that is resumed, where there is one.
        resumed: whether there is.
        jobs: that may run at the same time.
    """

    def __init__(
        self,
        context: HydraContext,
        task_function: TaskFunction,
        config: DictConfig,
        overrides: list[Override],
    ) -> None:
        self.loader = context.config_loader
        self.config = config
        self.folder = Path(config.hydra.sweep.dir)
        self.jobs = count_jobs(OmegaConf.select(config, "sweep.jobs", default=1))
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=task_function, config=config
        )
        given = OmegaConf.to_container(config.hydra.overrides)
        own = ("hydra.run.dir=", "hydra.sweep.dir=")
        kept = [o for o in given["hydra"] if not o.startswith((*own, "hydra.mode="))]
        self.resumed = (self.folder / LEDGER).is_file()
        earlier = Ledger.read(self.folder).jobs.values() if self.resumed else []
        swept = [o.get_key_element().lstrip("+") for o in overrides if o.is_sweep_override()]
        command = config.hydra.job.config_name
        self.ledger = Ledger(self.folder, command, kept + given["task"], swept, list(earlier))

    def add(self, job: Job) -> None:
        """Enters a job, unless a job of its number was entered before."""
        self.ledger.jobs.setdefault(job.number, job)

    def left(self) -> list[Job]:
        """Jobs that have not ended, those included that failed."""
        return [job for job in self.ledger.jobs.values()
                if self.ledger.state(job.number) not in ENDED]  # fmt: skip

    def launch(self, jobs: list[Job]) -> None:
        """Runs jobs and returns when all of them have ended.

        Raises:
            SystemExit: a signal ended a job, and so the sweep.
            RunStopped: the launcher itself failed.
        """
        if not jobs:
            return
        batch = [[*job.overrides, f"hydra.sweep.subdir={job.number}"] for job in jobs]
        for overrides in batch:  # a wrong key is found before any job runs
            self.loader.load_sweep_config(self.config, overrides)
        self.ledger.write()
        try:
            with self._signals():
                self.launcher.launch(batch, initial_job_idx=jobs[0].number)
        except (UserError, RunStopped):
            raise
        except Exception as error:  # of joblib, submitit or SLURM
            raise RunStopped(
                f"the launcher gave up ({type(error).__name__}: {error}). "
                f"Go on with: segtrain sweep {quote(f'resume={self.folder}')}", exit_code=1,
            ) from error  # fmt: skip
        code = max(read_record(self.ledger.job_folder(j.number))["exit_code"] or 0 for j in jobs)
        if code >= INTERRUPTED:
            raise SystemExit(code)

    def wait_for_others(self) -> None:
        """Waits for jobs that outlived an earlier process of this sweep, while they save.

        Raises:
            UserError: they go on running.
        """
        deadline = time.monotonic() + PATIENCE
        while running := [n for n in self.ledger.jobs if self.ledger.state(n) == "running"]:
            if time.monotonic() > deadline:
                records = {n: read_record(self.ledger.job_folder(n)) for n in running}
                found = ", ".join(f"job {n} (process {record['process']} on {record['host']})"
                                  for n, record in records.items())  # fmt: skip
                raise UserError(f"{self.folder}: still running: {found}; wait or end them")
            time.sleep(0.5)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Ends jobs on a signal; one that runs in this process puts its own handler in front."""
        (self.folder / STOP).unlink(missing_ok=True)
        old = {
            number: signal.signal(number, self._stop)
            for number in SIGNALS
            if signal.getsignal(number) != signal.SIG_IGN  # nohup
        }
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        (self.folder / STOP).touch()
        records = [read_record(self.ledger.job_folder(n)) for n in self.ledger.jobs]
        for record in records:
            if record["state"] == "running" and record["process"] != os.getpid():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(record["process"], signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        while any(self.ledger.state(n) == "running" for n in self.ledger.jobs):
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        raise SystemExit(INTERRUPTED + number)


def sweep(
    context: HydraContext, task_function: TaskFunction, config: DictConfig, arguments: list[str]
) -> None:
    """Runs all jobs, or those that are left, prints the ledger and writes the best configuration.

    Raises:
        SystemExit: the exit code where it is not 0: of the signal, else the largest of the jobs'.
        UserError: the sweep cannot be run, or another process is running it.
    """
    is_search = OmegaConf.select(config, "sweep.trials") is not None
    if is_search:
        from segtrain.sweep.search import run_search  # which says how to get Optuna
    if "sweep" in config:
        validate(Sweep, OmegaConf.to_container(config.sweep, resolve=True), "sweep")
    parser = OverridesParser.create(config_loader=context.config_loader)
    overrides = parser.parse_overrides(arguments)
    run = Sweeping(context, task_function, config, overrides)
    run.folder.mkdir(parents=True, exist_ok=True)
    with only_one(run.folder):
        run.wait_for_others()
        try:
            if is_search:
                run_search(run, overrides, OmegaConf.to_container(config.sweep, resolve=True))
            else:
                run_grid(run, overrides)
        finally:
            conclude(run)
    states = {number: run.ledger.state(number) for number in run.ledger.jobs}
    codes = [read_record(run.ledger.job_folder(n))["exit_code"] or 1
             for n, state in states.items() if state not in ENDED]  # fmt: skip
    if codes:
        raise SystemExit(max(codes))


def run_grid(run: Sweeping, overrides: list[Override]) -> None:
    """Every combination of the values given, those of the last key varying fastest.

    Raises:
        UserError: an override is a range of real numbers.
    """
    for override in overrides:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise UserError(f"{override.input_line}: there are endless values between the two; "
                            "list some, or search with sweep=optuna")  # fmt: skip
    choices = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override() else [override.input_line]
        for override in overrides
    ]  # fmt: skip
    for number, combination in enumerate(itertools.product(*choices)):
        run.ledger.jobs[number] = Job(number, list(combination))
    run.launch(run.left())


def conclude(run: Sweeping) -> None:
    """Writes the ledger and the best configuration, and prints where all is."""
    if not run.ledger.jobs:
        return
    run.ledger.write()
    run.ledger.print()
    best = write_best(run.ledger, run.loader)
    if best is not None:
        print(f"best        segtrain experiment={best}")
    if run.left():
        print(f"go on       segtrain sweep {quote(f'resume={run.folder}')}")
    print(f"tensorboard segtrain tensorboard {quote(f'run={run.folder}')}", flush=True)


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keeps a second process from running the same sweep.

    Raises:
        UserError: there is one.
    """
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process is running this sweep; to share a search, "
                            "start another with the same sweep.storage") from None  # fmt: skip
        yield


def count_jobs(jobs: int) -> int:
    """Jobs at the same time; -1 stands for the number of CPU cores."""
    return cores() if jobs == -1 else jobs
