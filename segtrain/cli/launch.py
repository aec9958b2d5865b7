"""Several processes: counting them, starting them with torchrun's engine, sharing one config."""

import logging
import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import IO, NamedTuple

import yaml

from segtrain.errors import UserError

CONFIG_KEY = "segtrain/config"
# What a child gets when its parent gets the key. A training saves on SIGTERM and SIGUSR1 only.
PASSED_ON = {
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGUSR1: signal.SIGUSR1,
    signal.SIGINT: signal.SIGTERM,
    signal.SIGHUP: signal.SIGTERM,
}


def rank() -> int:
    """This process's number among all, 0 where there is only one."""
    return int(os.environ.get("RANK", "0"))


def is_worker() -> bool:
    """Whether torchrun (ours or the user's) started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def processes(trainer: dict) -> int:
    """Processes on this machine that the trainer settings ask for.

    Raises:
        UserError: more devices than there are, or no GPU where one is asked for.
    """
    if is_worker():
        return int(os.environ["LOCAL_WORLD_SIZE"])
    accelerator, devices = trainer["accelerator"], trainer["devices"]
    if accelerator == "cpu":
        return 1 if devices == "auto" else int(devices)
    import torch

    gpus = torch.cuda.device_count()
    if accelerator != "auto" and not gpus:
        raise UserError(
            f"trainer.accelerator={accelerator}, but PyTorch finds no GPU; "
            "set trainer.accelerator=cpu (or auto)"
        )
    if devices == "auto":
        return max(1, gpus)
    if int(devices) > max(1, gpus):
        raise UserError(
            f"trainer.devices={devices}, but this machine has {gpus} GPUs; set trainer.devices="
            f"{max(1, gpus)}, or trainer.accelerator=cpu for that many processes on the CPU"
        )
    return int(devices)


def spawn(command: str, config: dict, run_dir: Path, count: int) -> int:
    """Runs the command in `count` processes of this machine and returns the first failure's code.

    A process that fails ends the others. SIGTERM and SIGUSR1 are handed on to all of them.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    launch_config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=f"segtrain-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        signals_to_handle="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
    )
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    # A failing process says itself what went wrong; the launcher's account would bury it.
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    try:
        elastic_launch(launch_config, sys.executable)(
            "-m", "segtrain.cli.worker", command, str(run_dir)
        )
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException as error:
        return 128 + error.sigval
    return 0


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
    """Runs a child process and hands signals on to it.

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
            arguments, env=environment, stdin=subprocess.DEVNULL, process_group=0, text=True,
            errors="replace", stdout=piped, stderr=piped,
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
    return Outcome((128 - code if code < 0 else code) or (128 + last if last else 0), last)


def _copy(source: IO[str], target: IO[str], prefix: str, file: IO[str] | None) -> None:
    for line in source:
        print(prefix + line, end="", file=target, flush=True)
        if file is not None:
            print(line, end="", file=file, flush=True)


def send(command: str, config: dict, run_dir: Path) -> None:
    """Rank zero's part of `receive`."""
    _store().set(CONFIG_KEY, yaml.safe_dump([command, config, str(run_dir)]))


def receive() -> tuple[str, dict, Path]:
    """Command, configuration and run folder of rank zero; waits for them."""
    command, config, run_dir = yaml.safe_load(_store().get(CONFIG_KEY))
    return command, config, Path(run_dir)


def _store() -> "object":
    """The key-value store that torchrun keeps for its processes."""
    from torch.distributed import PrefixStore, TCPStore

    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    return PrefixStore(f"segtrain/{attempt}", store)
