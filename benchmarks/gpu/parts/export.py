"""Exported networks on the device: equal to eager there, and their latency."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.cell import Cell, Figures, Setting, Skipped
from benchmarks.gpu.commands import quickstart, start, untrained
from benchmarks.gpu.timing import seconds_per_call, tf32
from segtrain.assembly import rebuild
from segtrain.export.deployed import Deployed, one_look
from segtrain.trained import read_checkpoint

AGREEMENT = 0.999  # share of pixels with the same class, as `segtrain export` asks for
PROVIDER = "CUDAExecutionProvider"
CHOSEN = ("architecture=deeplabv3_torchvision", "dataset=voc",
          "architecture.backbone.weights=none", "trainer.max_steps=1")  # fmt: skip


def cells(setting: Setting) -> list[Cell]:
    """Both formats of a small network, and of a large one."""
    networks = {"quickstart": (96, 96)} if setting.tiny else {
        "quickstart": (96, 96), "DeepLabv3-R50": (512, 512)}  # fmt: skip
    formats = {"torch_export": program_on, "onnx": session_on}
    return [
        Cell(f"{network} {name}", 45 if size[0] > 96 else 15,
             partial(measure, network, name, load, size))
        for network, size in networks.items() for name, load in formats.items()
    ]  # fmt: skip


def measure(
    network: str,
    format_name: str,
    load: Callable[[Path, Setting], Callable[[Tensor], Tensor]],
    size: tuple[int, int],
    setting: Setting,
) -> Figures:
    """Largest difference from eager, and milliseconds an image, in float32 on the device."""
    if format_name == "onnx":
        require_onnx(setting)
    if network == "quickstart":
        checkpoint = quickstart(setting) / "checkpoints" / "best.ckpt"
    else:
        checkpoint = untrained(setting, "exported", CHOSEN)
    out = setting.scratch / f"{network}-{format_name}"
    path = out / "model"
    if not path.exists():
        out.mkdir(exist_ok=True)
        values = {"checkpoint": str(checkpoint), "output": str(path), "format": format_name,
                  "compare_sizes": [[97, 129]]}  # fmt: skip
        start(setting, "export", [], out / "run", values)  # compares on the CPU
    model, inference, _ = rebuild(read_checkpoint(checkpoint), None, False)
    device = torch.device(setting.device)
    eager = Deployed(model, one_look(inference), "logits").to(device)
    exported = load(path, setting)
    image = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, device=device)
    with torch.no_grad(), tf32(False):
        expected, found = eager(image), exported(image)
        difference = (expected - found).abs().max().item()
        agreement = (expected.argmax(1) == found.argmax(1)).float().mean().item()
        at_least = 0 if setting.tiny else 0.5
        ms = [1e3 * seconds_per_call(partial(call, image), at_least)
              for call in (eager, exported, eager)]  # fmt: skip
    mean = (ms[0] + ms[2]) / 2
    return {"equal": agreement >= AGREEMENT, "largest difference": difference,
            "same class %": 100 * agreement, "size": f"{size[0]}x{size[1]}", "ms": ms[1],
            "eager ms": mean, "times faster than eager": mean / ms[1]}  # fmt: skip


def program_on(path: Path, setting: Setting) -> Callable[[Tensor], Tensor]:
    """The program of torch.export on the device."""
    from torch.export.passes import move_to_device_pass

    program = torch.export.load(path)
    if setting.has_gpu:
        program = move_to_device_pass(program, setting.device)
    return program.module()


def require_onnx(setting: Setting) -> None:
    """Skips the cell where ONNX cannot be written, or not be run on the device.

    Raises:
        Skipped: says what is missing.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise Skipped(f"{', '.join(missing)} not installed")
    import onnxruntime

    if setting.has_gpu and PROVIDER not in onnxruntime.get_available_providers():
        raise Skipped(f"onnxruntime has no {PROVIDER} (onnxruntime-gpu brings it)")


def session_on(path: Path, setting: Setting) -> Callable[[Tensor], Tensor]:
    """ONNX Runtime on the device; images and logits stay there."""
    import onnxruntime

    if setting.has_gpu and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # finds the libraries that PyTorch brought along
    wanted = [(PROVIDER, {"use_tf32": "0"})] if setting.has_gpu else ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(path), providers=wanted)
    if setting.has_gpu and PROVIDER not in session.get_providers():
        raise Skipped(f"onnxruntime's {PROVIDER} does not start with this CUDA")
    (output,) = session.get_outputs()
    if not setting.has_gpu:
        return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])

    def run(image: Tensor) -> Tensor:
        found = torch.empty(len(image), int(output.shape[1]), *image.shape[2:], device="cuda")
        torch.cuda.synchronize()  # ONNX Runtime has a stream of its own
        binding = session.io_binding()
        binding.bind_input("image", "cuda", 0, np.uint8, tuple(image.shape), image.data_ptr())
        binding.bind_output(
            output.name, "cuda", 0, np.float32, tuple(found.shape), found.data_ptr()
        )
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return found

    return run
