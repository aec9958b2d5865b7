"""Several processes: counting them, starting and connecting them with torchrun's engine."""

import atexit
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segtrain.configuration.schema import Processes
from segtrain.errors import UserError
from segtrain.hardware import cores
from segtrain.lifetime import end_with_parent

if TYPE_CHECKING:
    import torch.distributed as dist

LOCAL = "127.0.0.1"
PATIENCE = timedelta(days=30)  # for processes whose share of the work takes longer


def rank() -> int:
    """This process's number among all, 0 where there is only one."""
    return int(os.environ.get("RANK", "0"))


def is_worker() -> bool:
    """Whether torchrun (ours or the user's) started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def restartable_job() -> str | None:
    """The user's torchrun job's id, where torchrun starts its processes again after a failure."""
    if not is_worker() or os.environ["TORCHELASTIC_MAX_RESTARTS"] == "0":
        return None
    return os.environ["TORCHELASTIC_RUN_ID"]


def was_restarted() -> bool:
    """Whether the process that this one replaces, on the same machine, failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def count_processes(trainer: Processes) -> None:
    """Puts the processes of each machine and the machines into the trainer settings, as numbers.

    Raises:
        UserError: no GPU or fewer than asked for, or several machines without torchrun on each.
    """
    if is_worker():
        trainer["devices"] = int(os.environ["LOCAL_WORLD_SIZE"])
        trainer["num_nodes"] = int(os.environ["GROUP_WORLD_SIZE"])
        if trainer["devices"] * trainer["num_nodes"] != int(os.environ["WORLD_SIZE"]):
            raise UserError("torchrun has started more processes on one machine than on another; "
                            "give every machine the same --nproc-per-node")  # fmt: skip
        _require_gpus(trainer, trainer["devices"], "torchrun --nproc-per-node")
        return
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks > 1:
        raise UserError(
            f"srun has started this command {tasks} times, and each would run alone; let srun "
            "start one torchrun on each machine instead, as scripts/train.sbatch does"
        )
    if trainer["num_nodes"] != 1:
        raise UserError(
            f"trainer.num_nodes={trainer['num_nodes']}, but this is a command on one machine; "
            "start torchrun on every machine (conf/trainer/multinode.yaml says how), or set "
            "trainer.num_nodes=1"
        )
    if trainer["devices"] == "auto":
        trainer["devices"] = max(1, _require_gpus(trainer, 1, "trainer.devices"))
    else:
        trainer["devices"] = int(trainer["devices"])
        _require_gpus(trainer, trainer["devices"], "trainer.devices")


def _require_gpus(trainer: Processes, count: int, key: str) -> int:
    """The number of this machine's GPUs, where the settings lead to them, else 0."""
    accelerator = trainer["accelerator"]
    if accelerator == "cpu":
        return 0
    import torch

    gpus = torch.cuda.device_count()
    if accelerator != "auto" and not gpus:
        raise UserError(
            f"trainer.accelerator={accelerator}, but PyTorch finds no GPU; "
            "set trainer.accelerator=cpu (or auto)"
        )
    if count > max(1, gpus):
        raise UserError(
            f"{key}={count}, but this machine has {gpus} GPUs; set {key}={max(1, gpus)}, or "
            "trainer.accelerator=cpu for that many processes on the CPU"
        )
    return gpus


def spawn(command: str, run_dir: Path, count: int, max_restarts: int) -> int:
    """Runs the command in `count` processes of this machine and returns the first failure's code.

    A process that fails ends the others, and all start again up to `max_restarts` times. SIGTERM
    and SIGUSR1 are handed on to all of them. They find each other on this machine's own address,
    which no other machine reaches.
    """
    from torch.distributed import TCPStore
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    meeting = socket.create_server((LOCAL, 0))
    port = meeting.getsockname()[1]
    # torchrun's own would listen on all addresses; it takes one of this process that has its port.
    store = TCPStore(LOCAL, port, is_master=True, wait_for_workers=False, multi_tenant=True,
                     master_listen_fd=meeting.detach())  # fmt: skip
    launch_config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=f"segtrain-{os.getpid()}",
        rdzv_backend="static",
        rdzv_endpoint=f"{LOCAL}:{port}",
        rdzv_configs={"rank": 0},
        max_restarts=max_restarts,
        signals_to_handle="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
    )
    threads = max(1, cores() // count)
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
    finally:
        del store  # closes its port
    return 0


def connect() -> None:
    """Connects this process with all others that torchrun started.

    Done before anything can fail in one process alone: from here on the end of a process, on
    whatever machine, ends those that wait for it; and the end of the launcher ends this one.

    Raises:
        UserError: the restarts that torchrun was asked for could not work.
    """
    end_with_parent()
    if os.environ["WORLD_SIZE"] == "1":
        return
    import torch
    import torch.distributed as dist

    on_agent = os.environ["TORCHELASTIC_USE_AGENT_STORE"] == str(True)
    store = None
    if restartable_job() and on_agent and os.environ["GROUP_WORLD_SIZE"] != "1":
        raise UserError(
            "restarts on several machines need --rdzv-backend=c10d, and on every machine "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before torchrun: without it the processes look "
            "for each other where they were before the restart"
        )
    if on_agent:
        # torchrun's own store outlives a restart, and with it the addresses of the ended processes.
        attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.PrefixStore(f"segtrain/{attempt}", dist.TCPStore(address, port))
    gpus = torch.cuda.is_available()
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if gpus else "gloo",
        store=store,
        rank=rank(),
        world_size=int(os.environ["WORLD_SIZE"]),
    )
    if gpus:
        atexit.register(dist.destroy_process_group)


def place() -> tuple[int, int]:
    """This process's number among all connected ones, and how many they are."""
    import torch.distributed as dist

    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def waiting_group() -> "dist.ProcessGroup | None":
    """All processes, for `wait`; None of a single process. A collective call."""
    import torch.distributed as dist

    return dist.new_group(backend="gloo", timeout=PATIENCE) if dist.is_initialized() else None


def wait(group: "dist.ProcessGroup | None", meanwhile: Callable[[], None]) -> None:
    """Waits for all processes of a group, and calls `meanwhile` again and again."""
    import torch.distributed as dist

    if group is None:
        return
    meeting = dist.barrier(group, async_op=True)
    while not meeting.is_completed():
        meanwhile()
        time.sleep(0.05)
    meeting.wait()


def shared(value: object) -> object:
    """Rank zero's value, on all processes; waits for it."""
    return _broadcast([value])[0]


def send(command: str, config: dict[str, Any], run_dir: Path) -> None:
    """Rank zero's part of `receive`."""
    _broadcast([command, config, run_dir])


def receive() -> tuple[str, dict, Path]:
    """Command, configuration and run folder of rank zero; waits for them."""
    return tuple(_broadcast([None, None, None]))


def _broadcast(values: list) -> list:
    import torch
    import torch.distributed as dist

    if dist.is_initialized():
        dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values
