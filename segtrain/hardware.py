"""What this machine computes on, and how precisely."""

import re
from pathlib import Path

import torch


def resolve_precision(settings: dict) -> str:
    """`auto`: bfloat16 autocast where the hardware computes in it, float32 elsewhere."""
    if settings["precision"] != "auto":
        return str(settings["precision"])
    if uses_gpu(settings):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = _cpu_has_bfloat16()
    return "bf16-mixed" if native else "32-true"


def uses_gpu(settings: dict) -> bool:
    """Whether the trainer settings lead to a GPU on this machine."""
    return settings["accelerator"] != "cpu" and torch.cuda.is_available()


def _cpu_has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", flags) is not None
