"""A training step of full-size networks, beside the same network of a public library.

Both live in one process and take turns, A B A; the second A tells how far the clock drifted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.cards import peak_of
from benchmarks.gpu.cell import Cell, Figures, Setting
from benchmarks.gpu.commands import config_of
from benchmarks.gpu.timing import (
    clocks_under,
    held_mb,
    peak_mb,
    reset_peak,
    seconds_per_call,
    tf32,
)
from benchmarks.gpu.worker import MEMORY
from segtrain.assembly import build_data
from segtrain.benchmark import detector, step
from segtrain.benchmark.peers import PEERS

OBJECTS = 8  # an image
STILL = "optimizer.lr=1e-9"  # random labels must not make a network diverge
SAME = 1e-3  # of the number of parameters, at which two networks count as one


@dataclass(frozen=True)
class Network:
    """One that is stepped.

    Args:
        name: with its input's side.
        overrides: that choose it, as its peer has it.
        batch: images a step.
        size: height and width of an image.
        peer_size: the same, of a peer that does not take such images.
        tiny: overrides of the tiny form, with a backbone that is built sooner.
    """

    name: str
    overrides: tuple[str, ...]
    batch: int
    size: tuple[int, int]
    peer_size: tuple[int, int] | None = None
    tiny: tuple[str, ...] = ()


@dataclass(frozen=True)
class Variant:
    """How it computes.

    Args:
        precision: bf16, tf32 or float32.
        compiled: by torch.compile.
        channels_last: whether weights and images lie so.
    """

    precision: str
    compiled: bool = False
    channels_last: bool = True

    @property
    def name(self) -> str:
        return (f"{self.precision}{' compiled' if self.compiled else ''}"
                f"{'' if self.channels_last else ' contiguous'}")  # fmt: skip


@dataclass
class Side:
    """A network that is ready for steps."""

    model: nn.Module
    call: Callable[[], None]
    held: float  # MB between two steps

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())


Build = Callable[[torch.device, int], tuple[nn.Module, Callable[[], None]]]

R18 = ("architecture.backbone.name=resnet18.tv_in1k", "architecture.backbone.multi_grid=null",
       "architecture.backbone.uniform_dilation=false")  # fmt: skip
SMALLEST = ("architecture.backbone.name=test_resnet", "architecture.backbone.multi_grid=null")
NETWORKS = (
    Network("DeepLabv3-R50 513", ("architecture=deeplabv3_torchvision", "dataset=voc"), 8,
            (513, 513)),
    Network("PSPNet-R101 473", ("architecture=pspnet", "architecture.auxiliary=false",
            "architecture/backbone=resnet101", "dataset=voc"), 8, (473, 473), tiny=R18),
    Network("DeepLabv3+-R101 769", ("architecture=deeplabv3plus", "architecture.separable=true",
            "dataset=cityscapes"), 8, (769, 769), (768, 768), tiny=R18),
    Network("Mask R-CNN-R50 800", ("architecture=mask_rcnn", "dataset=coco2017"), 4, (800, 1088)),
    Network("FCN-R50 513", ("architecture=fcn_torchvision", "dataset=voc"), 8, (513, 513)),
    Network("EncNet-R101 481", ("architecture=encnet", "dataset=context59"), 8, (481, 481),
            tiny=SMALLEST),
)  # fmt: skip
QUICKEST = NETWORKS[2]  # in the tiny form, which tries all variants on it alone
VARIANTS = (
    Variant("bf16"), Variant("bf16", compiled=True), Variant("tf32"), Variant("float32"),
    Variant("bf16", channels_last=False), Variant("tf32", compiled=True),
    Variant("float32", compiled=True),
)  # fmt: skip


def cells(setting: Setting) -> list[Cell]:
    """Every network in bfloat16, then the first ones of the others."""
    return [
        Cell(f"{network.name} {variant.name}", 60 if variant.compiled else 12,
             partial(measure, network, variant), variant.precision)
        for variant in VARIANTS for network in NETWORKS
        if not setting.tiny or variant == VARIANTS[0] or network == QUICKEST
    ]  # fmt: skip


def measure(network: Network, variant: Variant, setting: Setting) -> Figures:
    """Images/s and memory of both sides, and the share of the card's peak that ours reaches."""
    config = config_of(setting, "train", overrides(network, variant, setting))
    data, size = build_data(config), network.size
    is_semantic = "crop_size" in config["dataset"]["transform"]
    peer_size = network.peer_size or size
    if setting.tiny:
        size = (33, 33) if is_semantic else (64, 96)
        peer_size = (32, 32) if network.peer_size else size
    precision = "bf16-mixed" if variant.precision == "bf16" else "32-true"
    config["trainer"]["precision"] = precision
    classes, batch = data.labels.num_classes, config["batch_size"]
    memory_format = torch.channels_last if variant.channels_last else torch.contiguous_format
    peer: Build | None = None
    if not is_semantic:
        ours: Build = partial(detector.ours, config, size, OBJECTS, "training step", precision)
        peer = partial(detector.theirs, config, size, OBJECTS, "training step", precision)
    else:
        ours = partial(step.our_step, config, size, precision)
        if config["architecture"]["_target_"].rpartition(".")[2] in PEERS:
            peer = partial(step.peer_step, config, peer_size, precision, memory_format)
    torch.backends.cudnn.benchmark = is_semantic  # as both sides' users train
    with tf32(variant.precision != "float32"):
        own, operations = prepare(ours, classes, variant, setting)
        figures: Figures = {"batch": f"{batch}x{size[0]}x{size[1]}",
                            "M parameters": own.parameters / 1e6}  # fmt: skip
        other = None
        if peer is None:
            figures["peer"] = "none"
        else:
            try:
                other, _ = prepare(peer, classes, variant, setting)
                figures["peer"] = named(network, own, other, is_semantic)
            except Exception as error:  # ours is measured all the same
                text = " ".join(f"{type(error).__name__}: {error}".split())
                lacks = any(word in text for word in MEMORY)
                figures["peer"] = "out of memory" if lacks else f"failed: {text[:120]}"
        return figures | compared(own, other, operations, batch, setting)


def named(network: Network, own: Side, other: Side, is_semantic: bool) -> str:
    """The peer's library, and in what it is another network."""
    name = PEERS[type(own.model).__name__].library if is_semantic else "torchvision"
    if network.peer_size is not None:
        name += f" at {network.peer_size[0]}"
    if abs(own.parameters / other.parameters - 1) < SAME:
        return name
    return f"{name}, with {other.parameters / 1e6:.1f} M parameters"


def compared(
    own: Side, other: Side | None, operations: int, batch: int, setting: Setting
) -> Figures:
    """Both sides in turn."""
    sides = [own, *([] if other is None else [other, own])]
    seconds, memory = [], []
    for side in sides:
        reset_peak()
        seconds.append(seconds_per_call(side.call, 0 if setting.tiny else 1.0, 40))
        others = sum(s.held for s in (own, other) if s is not None and s is not side)
        memory.append(peak_mb(setting) - others)
    ours = (seconds[0] + seconds[-1]) / 2
    figures: Figures = {"images/s": batch / ours, "ms": 1e3 * ours, "MB": memory[0],
                        "GFLOPs an image": operations / batch / 1e9}  # fmt: skip
    if setting.has_gpu:
        peak = peak_of(torch.cuda.get_device_name())
        figures["% of the bf16 peak"] = 100 * operations / ours / peak if peak else None
    if other is not None:
        figures |= {"peer images/s": batch / seconds[1], "peer MB": memory[1],
                    "times the peer": seconds[1] / ours,
                    "second A / first A": seconds[2] / seconds[0]}  # fmt: skip
    if setting.has_gpu:
        figures |= clocks_under(own.call, ours)
    return figures


def prepare(build: Build, classes: int, variant: Variant, setting: Setting) -> tuple[Side, int]:
    """A side that has run a few steps, and the operations of one, as PyTorch counts them."""
    before = held_mb(setting)
    model, call = build(torch.device(setting.device), classes)
    if not variant.channels_last:
        model.to(memory_format=torch.contiguous_format)
    with FlopCounterMode(display=False) as counter:
        call()
    if variant.compiled:
        # In the tiny form the graph is traced, and computed without compiling it.
        backend = "eager" if setting.tiny else "inductor"
        if hasattr(model, "rpn"):  # a detector: only what is dense, of any size
            for part in (model.backbone, getattr(model, "neck", None)):
                if part is not None:
                    part.compile(dynamic=True, backend=backend)
        else:
            model.compile(backend=backend)
    for _ in range(2):
        call()
    return Side(model, call, held_mb(setting) - before), counter.get_total_flops()


def overrides(network: Network, variant: Variant, setting: Setting) -> list[str]:
    """Of the configuration."""
    return [*network.overrides, *(network.tiny if setting.tiny else ()),
            "architecture.backbone.weights=none", STILL, "report=null", "callback=[]",
            "trainer.max_steps=1000", f"batch_size={2 if setting.tiny else network.batch}",
            f"trainer.channels_last={str(variant.channels_last).lower()}"]  # fmt: skip
