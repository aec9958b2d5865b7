"""DeepLabv2 of github.com/kazuto1011/deeplab-pytorch, with layers called as in Caffe's nets."""

import re

from torch import Tensor

from segtrain.zoo.entry import Recognised

STEM = "base.layer1.conv1.conv.weight"
LAST_BLOCK = "base.layer4.block23.reduce.conv.weight"  # of ResNet-101's fourth stage
CLASSIFIERS = "base.aspp.c"
UNITS = {"reduce": 1, "conv3x3": 2, "increase": 3}  # convolutions of a bottleneck
BLOCK = re.compile(r"base\.layer([2-5])\.block(\d+)\.(\w+)\.(conv|bn)\.(\w+)")
ARCHITECTURE = (
    "architecture=deeplabv2",
    "architecture.align_corners=false",
    "architecture.caffe_sizes=false",
    "architecture.backbone.stride_in_1x1=true",
    # The mean colour (122.675, 116.669, 104.008) and no deviation, of values in 0..255.
    "+architecture.backbone.timm_arguments.pretrained_cfg_overlay={"
    "mean:[0.48107843137,0.45752549020,0.40787450980],"
    "std:[0.00392156863,0.00392156863,0.00392156863]}",
)


def recognised(state: dict[str, Tensor]) -> Recognised | None:
    """What the names and shapes tell of a DeepLabv2; None where they are of another project."""
    if not {STEM, LAST_BLOCK, f"{CLASSIFIERS}0.weight", f"{CLASSIFIERS}3.weight"} <= state.keys():
        return None
    return Recognised("DeepLab (v2) ResNet-101", ARCHITECTURE, len(state[f"{CLASSIFIERS}0.weight"]))


def renamed(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under our names, for RGB; `own` are the network's."""
    state = state | {STEM: state[STEM].flip(1)}
    return {_renamed(key): value for key, value in state.items()}


def _renamed(key: str) -> str:
    if key.startswith(CLASSIFIERS):
        return f"head.classifiers.{key.removeprefix(CLASSIFIERS)}"
    if key.startswith("base.layer1.conv1."):
        kind, leaf = key.removeprefix("base.layer1.conv1.").split(".")
        return f"backbone.body.{kind}1.{leaf}"
    match = BLOCK.fullmatch(key)
    if match is None:
        return key
    stage, block, unit, kind, leaf = match.groups()
    layer = f"downsample.{int(kind == 'bn')}" if unit == "shortcut" else f"{kind}{UNITS[unit]}"
    return f"backbone.body.layer{int(stage) - 1}.{int(block) - 1}.{layer}.{leaf}"
