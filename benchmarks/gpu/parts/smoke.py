"""Does it run on a card at all: quickstart, resume, evaluation, no waiting, and what broke before.

Every cell says whether it `passes`; one that does not is a figure and no failure of the others.
"""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu.cards import peak_of
from benchmarks.gpu.cell import Cell, Figures, Setting
from benchmarks.gpu.commands import (
    begin,
    device_override,
    finish,
    quickstart,
    small_detector,
    small_run,
    start,
)
from benchmarks.gpu.timing import clocks_under, seconds_per_call, tf32
from segtrain.benchmark.training import product_speed
from segtrain.callback.system import SystemFigures

CLOSE = 2e-3  # of mIoU, between a GPU with TF32 and a CPU
PROBES = "benchmarks.gpu.probes"
PRODUCT = 8192  # side of the matrices that keep the card busy


def cells(setting: Setting) -> list[Cell]:
    """The most important first."""
    return [
        Cell("quickstart", 30, run_quickstart, "trained"),
        Cell("resume", 40, resume),
        Cell("evaluation as on the CPU", 15, evaluate_on_both),
        Cell("no waiting in a step", 8, partial(waits, small_run, [], 0)),
        Cell("no waiting, without EMA", 6, partial(waits, small_run, ["~callback.ema"], 0)),
        Cell("averaged weights on the device", 6, average_device),
        Cell("trainer.deterministic=true", 15, deterministic),
        Cell("16-mixed, clipped, AdamW", 6, partial(half, [])),
        Cell("16-mixed, clipped, SGD", 6, partial(half, ["optimizer=sgd_poly"])),
        Cell("kernels are not tried in validation", 6, kernel_choice),
        Cell("NVML that fails", 2, failing_nvml),
        Cell("waiting in a detector's step", 10, partial(waits, small_detector, [], None)),
        Cell("card", 10, card, "card"),
    ]


def run_quickstart(setting: Setting) -> Figures:
    """The whole of it, in the precision that it chooses."""
    started = time.perf_counter()
    results = json.loads((quickstart(setting) / "results.json").read_text())
    timing = results["timing"]
    device = results["peak_memory_bytes"]["device"]
    return {
        "passes": setting.tiny or results["metrics"]["miou"] > 0.6,
        "mIoU %": 100 * results["metrics"]["miou"],
        "precision": results["precision"],
        "images/s": timing["train_images_per_second"],
        "training s": timing["train_seconds"],
        "in all s": time.perf_counter() - started,
        "data wait %": 100 * timing["data_wait_fraction"],
        "device MB": None if device is None else device / 2**20,
    }


def resume(setting: Setting) -> Figures:
    """N steps against N steps that are killed in the middle, resumed: equal to the last bit."""
    steps, folder = (4 if setting.tiny else 20), setting.scratch / "resume"
    run = [*small_run(setting, steps), "trainer.deterministic=true", device_override(setting),
           f"trainer.checkpoint_every_n_steps={steps // 2}"]  # fmt: skip
    kill = (f"+callback.probe={{_target_: {PROBES}.Kill, step: {steps // 2 + 1}, "
            f"mark: {folder / 'mark'}}}")  # fmt: skip
    whole = begin([*run, "hydra.run.dir=whole"], folder)
    cut = begin([*run, kill, "hydra.run.dir=cut"], folder)
    finish(whole)
    finish(cut, codes=(-9,))
    finish(begin(["resume=cut", "trust_code=true"], folder))
    states = [torch.load(folder / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
              for name in ("whole", "cut")]  # fmt: skip
    unequal = [key for key in states[0] if not torch.equal(states[0][key], states[1][key])]
    return {"passes": not unequal, "steps": steps, "unequal tensors": len(unequal),
            "tensors": len(states[0])}  # fmt: skip


def evaluate_on_both(setting: Setting) -> Figures:
    """The quickstart's network in float32 on the device, and on the CPU."""
    run_dir, found = quickstart(setting), []
    for accelerator in ("auto", "cpu"):
        out = setting.scratch / f"evaluated on {accelerator}"
        overrides = [f"run={run_dir}", "trainer.precision=32-true", "report=null",
                     f"trainer.accelerator={accelerator}"]  # fmt: skip
        found.append(start(setting, "evaluate", overrides, out)["metrics"]["miou"])
    return {"passes": abs(found[0] - found[1]) < CLOSE, "mIoU % on the device": 100 * found[0],
            "mIoU % on the CPU": 100 * found[1],
            "difference": abs(found[0] - found[1])}  # fmt: skip


def waits(
    run: Callable[[Setting], list[str]], overrides: list[str], allowed: int | None, setting: Setting
) -> Figures:
    """How often a training step makes the host wait; `allowed` None for a count alone."""
    found = probed(setting, "Waits", [*run(setting), *overrides])
    if not found["steps"]:  # a CPU never waits for itself
        return {"passes": None, "steps": 0}
    per_step = found["waits"] / found["steps"]
    return {"passes": allowed is None or per_step <= allowed, "steps": found["steps"],
            "waits a step": per_step, "where": found["where"] or "-"}  # fmt: skip


def average_device(setting: Setting) -> Figures:
    """Whether averages lie beside the weights."""
    found = probed(setting, "AverageDevice", small_run(setting))
    return {"passes": found["tensors"] > 0 and found["device"] == found["own"],
            "where": found["device"] or "-", "trained on": found["own"]}  # fmt: skip


def deterministic(setting: Setting) -> Figures:
    """Steps of cross-entropy with algorithms that repeat; in a process of its own, for cuBLAS."""
    run = [*small_run(setting), "trainer.deterministic=true", device_override(setting)]
    finish(begin([*run, "hydra.run.dir=run"], setting.scratch / "deterministic"))
    return {"passes": True}


def half(overrides: list[str], setting: Setting) -> Figures:
    """Scaled gradients, clipped, and an optimiser that is fused."""
    setting.require_gpu("float16")
    run = [*small_run(setting), *overrides, "trainer.precision=16-mixed",
           "trainer.gradient_clip_val=1.0"]  # fmt: skip
    results = start(setting, "train", run, folder_of(setting, "half"))
    return {"passes": results["precision"] == "16-mixed"}


def kernel_choice(setting: Setting) -> Figures:
    """Crops have one size, and pictures of a validation many: there each would be tried anew."""
    found = probed(setting, "KernelChoice", small_run(setting))
    return {"passes": found["in validation"] is False, **found}


def failing_nvml(setting: Setting) -> Figures:
    """What asks for the load of the card must not end a training."""
    setting.require_gpu("NVML")
    try:
        from pynvml import NVMLError

        error: Exception = NVMLError(999)
    except ImportError:
        error = type("NVMLError", (Exception,), {})("stands in for NVML's")

    def fail(*arguments: object) -> int:
        raise error

    before, torch.cuda.utilization = torch.cuda.utilization, fail
    try:
        found = SystemFigures().read(torch.device("cuda", 0))
    finally:
        torch.cuda.utilization = before
    return {"passes": "system/device_memory_gib" in found}


def card(setting: Setting) -> Figures:
    """What the card reaches: matrix products, copies, clocks while it works."""
    figures: Figures = {}
    device = torch.device(setting.device)
    kinds = {"bf16": "bf16-mixed", "float16": "16-mixed", "tf32": "32-true", "float32": "32-true"}
    for name, trained in [("bf16", "bf16-mixed")] if setting.tiny else kinds.items():
        with tf32(name != "float32"):
            figures[f"{name} TFLOP/s"] = product_speed(trained, device) / 1e12
    if not setting.has_gpu:
        return figures
    if peak := peak_of(torch.cuda.get_device_name()):
        figures["share of the bf16 peak %"] = 1e14 * figures["bf16 TFLOP/s"] / peak
    source = torch.empty(2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = seconds_per_call(partial(target.copy_, source), 0.2)
    figures["copy on the device GB/s"] = 2 * source.numel() / seconds / 1e9
    a = torch.randn(PRODUCT, PRODUCT, device=device, dtype=torch.bfloat16)
    seconds = seconds_per_call(partial(torch.mm, a, a), 0.2)
    return figures | clocks_under(partial(torch.mm, a, a), seconds)


def probed(setting: Setting, probe: str, overrides: list[str]) -> dict:
    """What a callback finds in a training of a few steps."""
    folder = folder_of(setting, probe)
    file = folder / "found.json"
    add = f"+callback.probe={{_target_: {PROBES}.{probe}, file: {file}}}"
    start(setting, "train", [*overrides, add], folder)
    return json.loads(file.read_text())


def folder_of(setting: Setting, name: str) -> Path:
    """A folder of its own for each call."""
    count = len(list(setting.scratch.glob(f"{name}-*")))
    folder = setting.scratch / f"{name}-{count}"
    folder.mkdir()
    return folder
