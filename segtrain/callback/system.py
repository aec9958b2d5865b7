"""Memory and load of this process and its device, for the log."""

import os
import resource
from pathlib import Path

import torch

from segtrain.figures import if_known

GIB = 2**30


class SystemFigures:
    """What is cheap to ask for, by the name under which it is logged.

    Host memory is the resident memory of this process and of its loader workers, in GiB; what they
    share is counted in each. Device memory is what PyTorch reserved on the device, in GiB, and what
    was allocated of it at most. The share of time in which the device computed needs NVIDIA's
    `nvidia-ml-py`. A figure that cannot be told is left out, and never asked for again.
    """

    def __init__(self) -> None:
        self._unknown: set[str] = set()

    def read(self, device: torch.device) -> dict[str, float]:
        """The figures of this process and its device."""
        asked = {"system/host_memory_gib": lambda: host_memory() / GIB}
        if device.type == "cuda":
            asked |= {
                "system/device_memory_gib": lambda: torch.cuda.memory_reserved(device) / GIB,
                "system/device_memory_peak_gib": lambda: (
                    torch.cuda.max_memory_allocated(device) / GIB
                ),
                "system/device_utilisation": lambda: torch.cuda.utilization(device) / 100,
            }
        found = {
            name: if_known(name, ask) for name, ask in asked.items() if name not in self._unknown
        }
        self._unknown |= {name for name, value in found.items() if value is None}
        return {name: value for name, value in found.items() if value is not None}


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
