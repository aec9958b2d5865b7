"""What the figures were made with: card, driver, clocks, packages; without touching the card."""

import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.gpu.cards import card_of
from segtrain.hardware import cores

PACKAGES = (
    "segtrain", "torch", "triton", "torchvision", "pytorch-lightning", "torchmetrics", "timm",
    "segmentation-models-pytorch", "opencv-python-headless", "opencv-python", "numpy", "onnx",
    "onnxruntime", "onnxruntime-gpu", "webdataset", "pydensecrf2",
)  # fmt: skip
# As nvidia-smi calls them, and as they are called here.
QUERY = {
    "name": "card", "driver_version": "driver", "memory.total": "memory MiB",
    "clocks.max.sm": "largest SM clock MHz", "clocks.max.mem": "largest memory clock MHz",
    "clocks.sm": "SM clock at the start MHz", "power.limit": "power limit W",
    "persistence_mode": "persistence", "compute_mode": "compute mode",
}  # fmt: skip


def describe(device: str) -> dict:
    """Card, host, versions and revision, as plain values."""
    found = {"card": processor(), "host": f"{processor()}, {cores()} cores",
             "python": platform.python_version(), "system": platform.platform(),
             "packages": packages(), "revision": revision()}  # fmt: skip
    if device != "cuda":
        return found
    found |= query(QUERY)
    known = card_of(str(found["card"]))
    if known is not None:
        found["peak TFLOP/s"], found["peak source"] = known.tflops, known.source
    return found | cuda_versions()


def query(fields: dict[str, str]) -> dict[str, str]:
    """What nvidia-smi says of the first card; nothing where it cannot be asked."""
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={','.join(fields)}",
               "--format=csv,noheader,nounits"]  # fmt: skip
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    values = answer.stdout.splitlines()[0].split(",") if answer.stdout else []
    if len(values) != len(fields):
        return {}
    return {name: value.strip() for name, value in zip(fields.values(), values, strict=True)}


def cuda_versions() -> dict[str, str]:
    """CUDA's and cuDNN's, and the card's name where nvidia-smi is not there."""
    import torch  # seconds, which a CPU's table does not need

    found = {"CUDA": str(torch.version.cuda), "cuDNN": str(torch.backends.cudnn.version())}
    if torch.cuda.is_available():
        found |= {"card": torch.cuda.get_device_name(),
                  "capability": "{}.{}".format(*torch.cuda.get_device_capability())}  # fmt: skip
    return found


def packages() -> dict[str, str]:
    """Versions of those that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """The name of this machine's."""
    try:
        named = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        named = None
    return named[1].strip() if named else platform.machine()


def revision() -> str | None:
    """Of the checkout; None where it is a copy without its history."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty",
             "--abbrev=12", "--exclude=*"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
