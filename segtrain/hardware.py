"""What this machine computes on, and how precisely."""

import os
import re
from pathlib import Path

from segtrain.configuration.schema import Computation, Processes


def resolve_precision(settings: Computation) -> str:
    """`auto`: bfloat16 autocast where the hardware computes in it, float32 elsewhere."""
    if settings["precision"] != "auto":
        return str(settings["precision"])
    if uses_gpu(settings):
        import torch

        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = _cpu_has_bfloat16()
    return "bf16-mixed" if native else "32-true"


def uses_gpu(settings: Processes) -> bool:
    """Whether the trainer settings lead to a GPU on this machine."""
    if settings["accelerator"] == "cpu":
        return False
    import torch  # slow: those who ask for the cores alone start without

    return torch.cuda.is_available()


def cores() -> int:
    """How many of the machine's cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def _cpu_has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", flags) is not None
