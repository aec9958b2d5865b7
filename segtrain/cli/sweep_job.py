"""One job of a sweep: in the sweep's process, or in one of its own with its share of CPU and GPU.

`python -m segtrain.cli.sweep_job COMMAND RUN_FOLDER` is the latter. A process of its own is what
keeps a job that crashes from ending the others.
"""

import contextlib
import fcntl
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from segtrain.cli.child import run_process
from segtrain.cli.explain import explain
from segtrain.cli.main import report
from segtrain.errors import PRUNED
from segtrain.hardware import cores
from segtrain.lifetime import PARENT, end_with_parent, repeating
from segtrain.sweep.ledger import (
    HEARTBEAT,
    INTERRUPTED,
    LEDGER,
    RECORD,
    STOP,
    Ledger,
    now,
    read_record,
    write_record,
)
from segtrain.writing import write_text

SLOTS = ".slots"


def run(
    command: str, make_config: Callable[[], dict], run_dir: Path, launcher: dict, jobs: int
) -> int:
    """Runs a job and returns its exit code; 0 also for one that another process had finished.

    Args:
        command: such as `train`.
        make_config: resolves the configuration.
        run_dir: of the job, in the folder of the sweep.
        launcher: Hydra's launcher node; the basic one runs jobs in this process.
        jobs: that run at the same time on this machine.
    """
    sweep_dir = run_dir.parent
    if (sweep_dir / STOP).exists():
        return INTERRUPTED + signal.SIGTERM
    try:
        config = make_config()
        if command == "train" and is_interrupted(run_dir):
            config["resume"] = str(run_dir)
        if is_here(launcher):
            code = run_here(command, config, run_dir)
        else:
            code = run_apart(command, config, run_dir, launcher, jobs)
    except BaseException as error:
        code = report(error)
        write_record(run_dir, state=state_of(code), exit_code=code, message=message_of(error))
    if (sweep_dir / LEDGER).is_file():
        Ledger.read(sweep_dir).write()
    return code


def is_here(launcher: dict) -> bool:
    """Whether the launcher runs its jobs one by one in the sweep's own process."""
    return launcher["_target_"].endswith(".BasicLauncher")


def is_interrupted(run_dir: Path) -> bool:
    """Whether an earlier process began the training and got as far as a checkpoint."""
    begun = read_record(run_dir)["started"] is not None
    return begun and (run_dir / "checkpoints" / "last.ckpt").is_file()


def run_here(command: str, config: dict[str, Any], run_dir: Path) -> int:
    """Runs a job in this process, keeping its record, and returns its exit code."""
    from segtrain.cli import app
    from segtrain.configuration.checking import checked

    write_record(run_dir, state="running", exit_code=None, message=None, process=os.getpid(),
                 host=socket.gethostname(), started=now(), ended=None)  # fmt: skip
    message = None
    with signs_of_life(run_dir):
        try:
            code = app.start(command, checked(command, config), run_dir)
        except BaseException as error:
            code, message = report(error), message_of(error)
    validation = validated(run_dir) if command == "train" and code in (0, PRUNED) else None
    write_record(run_dir, state=state_of(code), exit_code=code, ended=now(), validation=validation,
                 message=message or (f"exit code {code}" if code else None))  # fmt: skip
    return code


def run_apart(
    command: str, config: dict[str, Any], run_dir: Path, launcher: dict[str, Any], jobs: int
) -> int:
    """Runs a job in a process of its own, each line of whose output begins with its number."""
    parent = os.getppid()
    end_with_parent(signal.SIGTERM)
    write_text(run_dir / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    trainer = config.get("trainer", {})
    devices = trainer.get("devices", 1)
    devices = devices if isinstance(devices, int) else 1
    local = "n_jobs" in launcher  # joblib; SLURM gives each of its jobs what it asked for
    environment = {**os.environ, **share_of_threads(jobs if local else 1, devices)}
    arguments = [sys.executable, "-m", "segtrain.cli.sweep_job", command, str(run_dir)]
    with slot(run_dir.parent, jobs if local else 1) as number:
        if local and trainer.get("accelerator") != "cpu":
            environment |= share_of_gpus(number, devices)
        code, received = run_process(arguments, environment, prefix=f"[{run_dir.name}] ")
    orphaned = os.getppid() != parent  # the sweep was killed, and may be resumed by now
    if received and not orphaned:
        (run_dir.parent / STOP).touch()
    if read_record(run_dir)["state"] == "running":
        killed = signal.Signals(code - 128).name if 128 < code < 192 else f"exit code {code}"
        write_record(run_dir, state=state_of(code) if received else "failed", exit_code=code,
                     ended=now(), message=f"its process ended: {killed}")  # fmt: skip
        code = code if received else 1
    if orphaned:  # nobody waits for more, or would end this process
        os._exit(code)
    return code


def state_of(code: int) -> str:
    """What became of a job, by its exit code."""
    if code >= INTERRUPTED:
        return "stopped"
    return {0: "done", PRUNED: "pruned"}.get(code, "failed")


def message_of(error: BaseException) -> str:
    """An error in the user's terms, as it was printed."""
    if isinstance(error, SystemExit):
        return f"exit code {error.code}"
    explained = explain(error)
    return f"{type(error).__name__}: {error}" if explained is None else explained[0]


def validated(run_dir: Path) -> float | None:
    """The headline metric with which `best.ckpt` was chosen; None where nothing was validated."""
    from segtrain.trained import best_score  # imports PyTorch

    return best_score(run_dir / "checkpoints" / "best.ckpt")


@contextlib.contextmanager
def signs_of_life(run_dir: Path) -> Iterator[None]:
    """Touches the job's record again and again, for those who look from other machines."""

    def beat() -> None:
        with contextlib.suppress(OSError):
            os.utime(run_dir / RECORD)

    with repeating(beat, HEARTBEAT):
        yield


@contextlib.contextmanager
def slot(sweep_dir: Path, count: int) -> Iterator[int]:
    """A number below `count` that no other job of this machine has at the same time."""
    folder = sweep_dir / SLOTS
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        for number in range(count):
            file = stack.enter_context(open(folder / f"{socket.gethostname()}_{number}", "w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            yield number
            return
        yield 0


def share_of_threads(jobs: int, devices: int) -> dict[str, str]:
    """Variables that give each process of a job its part of the CPU threads.

    Args:
        jobs: that share the CPU, unless a variable says already how many threads one of them has
            (joblib sets them, after the user's).
        devices: processes of the job.
    """
    share = cores() // jobs
    given = {key: os.environ[key] for key in ("MKL_NUM_THREADS",) if key in os.environ}
    given["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(share))
    return {key: str(max(1, int(threads) // devices)) for key, threads in given.items()}


def share_of_gpus(number: int, devices: int) -> dict[str, str]:
    """CUDA_VISIBLE_DEVICES for the job in slot `number`; nothing where there is no choice."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        names = [str(i) for i, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]
    else:
        names = [name for name in visible.split(",") if name]
    if len(names) <= devices:
        return {}
    chosen = [names[(number * devices + i) % len(names)] for i in range(devices)]
    return {"CUDA_VISIBLE_DEVICES": ",".join(chosen)}


def main(command: str, run_dir: Path) -> int:
    """Runs the job with the configuration that lies in its folder."""
    os.environ.pop(PARENT, None)  # it saves first
    end_with_parent(signal.SIGTERM)
    return run_here(command, yaml.safe_load((run_dir / "config.yaml").read_text()), run_dir)


if __name__ == "__main__":
    gc.disable()  # as in segtrain.__main__
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
