"""`loss.form=fused` against whole and strips: the same numbers, and what they cost.

Where it wins, the automatic choice should take it, which the table says in words.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from statistics import median

import torch

from benchmarks.gpu.cell import Cell, Figures, Setting
from benchmarks.gpu.commands import config_of
from benchmarks.gpu.timing import held_mb, peak_mb, reset_peak, seconds_per_call
from benchmarks.gpu.verdicts import EQUAL, FORMS
from segtrain.benchmark.loss import build, random_scores

# Classes, images, side of the labels and stride of the scores, as recipes have them.
SHAPES = {19: (4, 769, 8), 21: (16, 513, 8), 171: (8, 513, 8)}
FEW = 2  # images, of which every gradient is compared
TINY_CLASSES = 18  # more than the kernels take at once
TINY = (1, 5, 2)
ROUNDS = 3
PLAIN = "plain"  # F.interpolate and F.cross_entropy


def cells(setting: Setting) -> list[Cell]:
    """Equality first: without it speed is worth nothing."""
    kinds = ["bf16"] if setting.tiny else ["bf16", "float32"]
    equal = [Cell(f"equal, {k} classes", 6, partial(equality, k), "equal") for k in SHAPES]
    speed = [Cell(f"{k} classes {kind}", 6, partial(speeds, k, kind), "speed")
             for kind in kinds for k in SHAPES]  # fmt: skip
    return equal + speed


def equality(classes: int, setting: Setting) -> Figures:
    """Largest differences of loss and gradient from the whole form, in float32.

    Those of gradients are relative to the largest of the whole form.
    """
    images, classes, side, stride = shape_of(classes, setting)
    device = torch.device(setting.device)
    scores, target = random_scores((min(images, FEW), classes, side, side), stride, device)
    target[:, : side // 8] = 255
    figures: Figures = {}
    found = {}
    for form in FORMS:
        if form == "fused" and (lack := lacks_fused()):
            figures["fused"] = lack
            continue
        loss, gradient = terms(setting, form, scores, target)
        found[form] = loss, gradient
    whole_loss, whole_gradient = found.pop("whole")
    for form, (loss, gradient) in found.items():
        figures[f"{form} loss"] = abs(loss - whole_loss) / abs(whole_loss)
        difference = (gradient - whole_gradient).abs().max() / whole_gradient.abs().max()
        figures[f"{form} gradient"] = difference.item()
    values = [value for value in figures.values() if isinstance(value, float)]
    return {"equal": "fused" in found and max(values) <= EQUAL, **figures}


def terms(
    setting: Setting, form: str, scores: torch.Tensor, target: torch.Tensor
) -> tuple[float, torch.Tensor]:
    """The loss, and its gradient at the scores."""
    leaf = scores.detach().clone().requires_grad_()
    seen: list[torch.Tensor] = []
    step = build(node(setting, form), torch.device(setting.device), seen.append)
    step((leaf, target))
    return seen[0].item(), leaf.grad


def speeds(classes: int, kind: str, setting: Setting) -> Figures:
    """Time of loss and gradient of each form and of the plain functions, and memory.

    Forms take turns, and each is timed several times. Memory is what a call adds at its highest.
    """
    images, classes, side, stride = shape_of(classes, setting)
    device = torch.device(setting.device)
    scores, target = random_scores((images, classes, side, side), stride, device)
    if kind == "bf16":
        scores = scores.detach().bfloat16().requires_grad_()
    figures: Figures = {"scores": f"{images}x{classes}x{side}x{side}, stride {stride}"}
    calls: dict[str, Callable[[], None]] = {}
    for form in (*FORMS, PLAIN):
        if form == "fused" and (lack := lacks_fused()):
            figures["fused ms"] = lack
            continue
        step = build(None if form == PLAIN else node(setting, form), device)
        calls[form] = partial(step, (scores, target))
    memory, seconds = {}, {form: [] for form in calls}
    for form, call in calls.items():
        call()  # kernels are built and chosen
        scores.grad = None
        before = held_mb(setting)
        reset_peak()
        call()
        memory[form] = peak_mb(setting) - before
    for _ in range(1 if setting.tiny else ROUNDS):
        for form, call in calls.items():
            seconds[form].append(seconds_per_call(call, 0 if setting.tiny else 0.2))
    for form in calls:
        figures |= {f"{form} ms": 1e3 * median(seconds[form]), f"{form} MB": memory[form]}
    return figures


def shape_of(classes: int, setting: Setting) -> tuple[int, int, int, int]:
    """Images, classes, side of the labels and stride of the scores."""
    images, side, stride = TINY if setting.tiny else SHAPES[classes]
    return images, min(classes, TINY_CLASSES) if setting.tiny else classes, side, stride


def node(setting: Setting, form: str) -> dict:
    """The configuration of the loss."""
    return config_of(setting, "train", ["loss=cross_entropy", f"loss.form={form}"])["loss"]


def lacks_fused() -> str | None:
    """Why the kernels cannot be tried; None where they can."""
    return None if find_spec("triton") else "skipped: Triton is not installed"
