"""Memory and load of this process and its device, for the log."""

import contextlib
import os
import resource
from pathlib import Path

import torch

GIB = 2**30


def memory_and_load(device: torch.device) -> dict[str, float]:
    """What is cheap to ask for, by the name under which it is logged.

    Host memory is the resident memory of this process and of its loader workers, in GiB; what they
    share is counted in each. Device memory is what PyTorch reserved on the device, in GiB, and what
    was allocated of it at most. The share of time in which the device computed needs NVIDIA's
    `nvidia-ml-py`, and is left out without it.
    """
    values = {"system/host_memory_gib": host_memory() / GIB}
    if device.type != "cuda":
        return values
    values["system/device_memory_gib"] = torch.cuda.memory_reserved(device) / GIB
    values["system/device_memory_peak_gib"] = torch.cuda.max_memory_allocated(device) / GIB
    with contextlib.suppress(ImportError, RuntimeError):
        values["system/device_utilisation"] = torch.cuda.utilization(device) / 100
    return values


def host_memory() -> int:
    """Resident bytes of this process and its children; without /proc, this process's largest."""
    own = Path(f"/proc/{os.getpid()}")
    if not own.is_dir():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = " ".join(_read(file) for file in own.glob("task/*/children")).split()
    pages = [_read(Path(f"/proc/{process}/statm")).split()
             for process in (os.getpid(), *children)]  # fmt: skip
    return sum(int(fields[1]) for fields in pages if fields) * os.sysconf("SC_PAGE_SIZE")


def _read(file: Path) -> str:
    """Its text; none of a process that has ended."""
    try:
        return file.read_text()
    except OSError:
        return ""
