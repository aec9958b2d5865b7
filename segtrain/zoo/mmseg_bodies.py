"""MMSegmentation's backbones: which one a file has, and its tensors under our names."""

import re
from typing import NamedTuple

from torch import Tensor

from segtrain.architecture.semantic.segformer import mix_transformer_state
from segtrain.architecture.three_branches import SIZES, three_branches_state
from segtrain.architecture.weights import resnet_name

State = dict[str, Tensor]
Rules = tuple[tuple[str, str], ...]


class Body(NamedTuple):
    """A backbone.

    Attributes:
        row: what rows call it, such as `r50b`.
        title: for messages.
    """

    row: str
    title: str


# Blocks in the stages, and the channels of the first.
MIX_TRANSFORMERS = {
    ((2, 2, 2, 2), 32): "b0", ((2, 2, 2, 2), 64): "b1", ((3, 4, 6, 3), 64): "b2",
    ((3, 4, 18, 3), 64): "b3", ((3, 8, 27, 3), 64): "b4", ((3, 6, 40, 3), 64): "b5",
}  # fmt: skip
SWINS = {
    ((2, 2, 6, 2), 96): "tiny", ((2, 2, 18, 2), 96): "small", ((2, 2, 18, 2), 128): "base",
    ((2, 2, 18, 2), 192): "large",
}  # fmt: skip
CONVNEXTS = {
    ((3, 3, 9, 3), 96): "tiny", ((3, 3, 27, 3), 96): "small", ((3, 3, 27, 3), 128): "base",
    ((3, 3, 27, 3), 192): "large", ((3, 3, 27, 3), 256): "xlarge",
}  # fmt: skip
# Blocks of the first branch of the second stage, and its channels.
HRNETS = {(2, 18): ("hr18s", "W18 small"), (4, 18): ("hr18", "W18"), (4, 48): ("hr48", "W48")}


def body_of(state: State) -> Body | None:
    """Which of the known backbones the names and shapes are of; None for none of them."""
    for find in (_mix_transformer, _three_branches, _hrnet, _swin, _convnext, _resnet):
        found = find(state)
        if found is not None:
            return found
    return None


def _resnet(state: State) -> Body | None:
    title = resnet_name(state)
    if title is None or "backbone.layer1.0.conv2.weight" not in state:
        return None
    stem = "" if "backbone.stem.0.weight" in state else "b"
    return Body(f"r{title.removeprefix('ResNet-')}{stem}", title)


def _mix_transformer(state: State) -> Body | None:
    depths = _depths(state, r"backbone\.layers\.(\d)\.1\.(\d+)\.norm1\.weight")
    size = MIX_TRANSFORMERS.get((depths, _width(state, "backbone.layers.0.0.projection.weight")))
    return None if size is None else Body(f"mit-{size}", f"MiT-{size.upper()}")


def _three_branches(state: State) -> Body | None:
    (blocks,) = _depths(state, r"backbone\.stem\.(2)\.(\d+)\.conv1\.conv\.weight", stages="2")
    found = (_width(state, "backbone.stem.0.conv.weight"), blocks)
    for name, size in SIZES.items():
        if (size.channels, size.stem_blocks) == found:
            return Body(name[-1], name[-1].upper())
    return None


def _hrnet(state: State) -> Body | None:
    first = r"backbone\.stage2\.0\.branches\.(0)\.(\d+)\.conv1\.weight"
    (blocks,) = _depths(state, first, stages="0")
    found = HRNETS.get((blocks, _width(state, "backbone.stage2.0.branches.0.0.conv1.weight")))
    return None if found is None else Body(found[0], f"HRNet-{found[1]}")


def _swin(state: State) -> Body | None:
    depths = _depths(state, r"backbone\.stages\.(\d)\.blocks\.(\d+)\.norm1\.weight")
    size = SWINS.get((depths, _width(state, "backbone.patch_embed.projection.weight")))
    shifts = _width(state, "backbone.stages.0.blocks.0.attn.w_msa.relative_position_bias_table")
    if size is None or not shifts:
        return None
    window = (round(shifts**0.5) + 1) // 2
    return Body(f"swin_{size}_patch4_window{window}", f"Swin-{size}, windows of {window}")


def _convnext(state: State) -> Body | None:
    depths = _depths(state, r"backbone\.stages\.(\d)\.(\d+)\.depthwise_conv\.weight")
    size = CONVNEXTS.get((depths, _width(state, "backbone.downsample_layers.0.0.weight")))
    return None if size is None else Body(f"convnext_{size}", f"ConvNeXt-{size}")


def _depths(state: State, pattern: str, stages: str = "0123") -> tuple[int, ...]:
    """How many blocks each stage has, of whose names the pattern finds stage and number."""
    found = [match[1] for key in state if (match := re.fullmatch(pattern, key))]
    return tuple(found.count(stage) for stage in stages)


def _width(state: State, weight: str) -> int:
    """Length of a tensor, a convolution's output channels; 0 where it is not there."""
    return len(state.get(weight, ()))


RESNET: Rules = (
    *((rf"^stem\.{n}\.", f"conv1.{n}.") for n in (0, 1, 3, 4, 6)),
    (r"^stem\.7\.", "bn1."),
)
SWIN: Rules = (
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^stages\.(\d)\.blocks\.", r"layers_\1.blocks."),
    *((rf"^stages\.{n}\.downsample\.", f"layers_{n + 1}.downsample.") for n in range(3)),
    (r"\.attn\.w_msa\.", ".attn."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
)
CONVNEXT: Rules = (
    (r"^downsample_layers\.0\.(\d)\.", r"stem_\1."),
    (r"^downsample_layers\.(\d)\.", r"stages_\1.downsample."),
    (r"^stages\.(\d)\.", r"stages_\1.blocks."),
    (r"\.depthwise_conv\.", ".conv_dw."),
    (r"\.pointwise_conv(\d)\.", r".mlp.fc\1."),
)


def renamed_body(state: State) -> State:
    """The backbone's tensors under our names, `backbone.` included.

    Args:
        state: the file's, all of them.
    """
    own = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    if _three_branches(state):
        return _with(three_branches_state(own), "backbone.")
    if _mix_transformer(state):
        return _with(mix_transformer_state(own), "backbone.body.")
    if _swin(state):
        own = {k: _merged(k, v) for k, v in own.items() if not k.endswith("position_index")}
    rules = SWIN if _swin(state) else CONVNEXT if _convnext(state) else RESNET
    norms = {k: v for k, v in own.items() if re.match(r"norm\d\.", k)}  # behind each map
    body = {k: v for k, v in own.items() if k not in norms}
    norms = {re.sub(r"^norm(\d)", r"norms.\1", k): v for k, v in norms.items()}
    return _with({_substituted(k, rules): v for k, v in body.items()}, "backbone.body.") | _with(
        norms, "backbone."
    )


def _with(state: State, prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}


def _substituted(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _merged(name: str, value: Tensor) -> Tensor:
    """A merging layer's tensor in the authors' order of inputs.

    Theirs has the four neighbours of a channel side by side, row by row; the authors the channels
    of a neighbour, column by column.
    """
    if ".downsample." not in name:
        return value
    neighbours = value.unflatten(-1, (-1, 4)).transpose(-1, -2)
    return neighbours[..., [0, 2, 1, 3], :].flatten(-2)
