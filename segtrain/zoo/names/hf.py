"""SegFormer and UPerNet of github.com/huggingface/transformers, as the Hugging Face hub keeps them.

Files keep the names of transformers 4; the modules of transformers 5 have others. Both are read,
and the first are written, which either of them reads.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from segtrain.zoo.entry import Recognised
from segtrain.zoo.sizes import STAGES, TABLE, architecture

# Of a module in files, in the modules of transformers 5, and ours; * stands for a block's number.
Names = tuple[tuple[str, str, str], ...]

SEGFORMER_BLOCK: Names = (
    ("layer_norm_1", "layernorm_before", "norm1"),
    ("attention.self.query", "attention.q_proj", "attn.q"),
    ("attention.self.key", "attention.k_proj", "attn.k"),
    ("attention.self.value", "attention.v_proj", "attn.v"),
    ("attention.self.sr", "attention.sequence_reduction.sequence_reduction", "attn.sr"),
    ("attention.self.layer_norm", "attention.sequence_reduction.layer_norm", "attn.norm"),
    ("attention.output.dense", "attention.o_proj", "attn.proj"),
    ("layer_norm_2", "layernorm_after", "norm2"),
    ("mlp.dense1", "mlp.fc1", "mlp.fc1"),
    ("mlp.dwconv.dwconv", "mlp.dwconv.dwconv", "mlp.dwconv"),
    ("mlp.dense2", "mlp.fc2", "mlp.fc2"),
)
SWIN_BLOCK: Names = (
    ("layernorm_before", "layernorm_before", "norm1"),
    (f"attention.self.{TABLE}", f"attention.relative_position_bias.{TABLE}", f"attn.{TABLE}"),
    ("attention.self.query", "attention.q_proj", "attn.q"),
    ("attention.self.key", "attention.k_proj", "attn.k"),
    ("attention.self.value", "attention.v_proj", "attn.v"),
    ("attention.output.dense", "attention.o_proj", "attn.proj"),
    ("layernorm_after", "layernorm_after", "norm2"),
    ("intermediate.dense", "mlp.fc1", "mlp.fc1"),
    ("output.dense", "mlp.fc2", "mlp.fc2"),
)
CONVNEXT_BLOCK = {
    "dwconv": "conv_dw", "layernorm": "norm", "pwconv1": "mlp.fc1", "pwconv2": "mlp.fc2",
    "layer_scale_parameter": "gamma",
}  # fmt: skip
# What nothing reads: buffers of transformers 4, and a norm behind the last block of Swin.
UNUSED = (".relative_position_index", "backbone.swin.layernorm.weight",
          "backbone.swin.layernorm.bias")  # fmt: skip


def _segformer() -> Iterator[tuple[str, str, str]]:
    for stage in STAGES:
        old, new = "segformer.encoder", f"segformer.stages.{stage}"
        ours = f"backbone.body.stages_{stage}"
        patches = f"{ours}.downsample" if stage else "backbone.body.patch_embed"
        for theirs, own in (("proj", "proj"), ("layer_norm", "norm")):
            yield (f"{old}.patch_embeddings.{stage}.{theirs}", f"{new}.patch_embeddings.{theirs}",
                   f"{patches}.{own}")  # fmt: skip
        for file, module, own in SEGFORMER_BLOCK:
            yield (f"{old}.block.{stage}.*.{file}", f"{new}.blocks.*.{module}",
                   f"{ours}.blocks.*.{own}")  # fmt: skip
        yield f"{old}.layer_norm.{stage}", f"{new}.layer_norm", f"{ours}.norm"
        yield (f"decode_head.linear_c.{stage}.proj", f"decode_head.linear_projections.{stage}.proj",
               f"head.projections.{stage}")  # fmt: skip
    yield from _alike({"linear_fuse": "fusion.0", "batch_norm": "fusion.1",
                       "classifier": "classifier"}, "decode_head", "head")  # fmt: skip


def _upernet() -> Iterator[tuple[str, str, str]]:
    blocks = {"bottleneck": "bottleneck", "fpn_bottleneck": "fusion"}
    blocks |= {f"psp_modules.{level}.1": f"pyramid.reductions.{level}" for level in STAGES}
    blocks |= {f"lateral_convs.{level}": f"laterals.{level}" for level in range(3)}
    blocks |= {f"fpn_convs.{level}": f"smooth.{level}" for level in range(3)}
    head = {"classifier": "classifier"}
    for theirs, own in blocks.items():
        head |= {f"{theirs}.conv": f"{own}.0", f"{theirs}.batch_norm": f"{own}.1"}
    yield from _alike(head, "decode_head", "head")
    yield from _alike({"convs.0.conv": "conv.0", "convs.0.batch_norm": "conv.1",
                       "classifier": "classifier"}, "auxiliary_head", "auxiliary")  # fmt: skip
    for stage in STAGES:
        norms = f"backbone.hidden_states_norms.stage{stage + 1}"
        yield norms, norms, f"backbone.norms.{stage}"


def _swin() -> Iterator[tuple[str, str, str]]:
    yield from _upernet()
    for theirs, own in (("patch_embeddings.projection", "proj"), ("norm", "norm")):
        yield (f"backbone.embeddings.{theirs}", f"backbone.swin.embeddings.{theirs}",
               f"backbone.body.patch_embed.{own}")  # fmt: skip
    for stage in STAGES:
        old, new = (f"backbone.{part}encoder.layers.{stage}" for part in ("", "swin."))
        for part in ("norm", "reduction"):
            yield (f"{old}.downsample.{part}", f"{new}.downsample.{part}",
                   f"backbone.body.layers_{stage + 1}.downsample.{part}")  # fmt: skip
        for file, module, own in SWIN_BLOCK:
            yield (f"{old}.blocks.*.{file}", f"{new}.blocks.*.{module}",
                   f"backbone.body.layers_{stage}.blocks.*.{own}")  # fmt: skip


def _convnext() -> Iterator[tuple[str, str, str]]:
    yield from _upernet()
    yield from _alike({"patch_embeddings": "stem_0", "layernorm": "stem_1"},
                      "backbone.embeddings", "backbone.body")  # fmt: skip
    for stage in STAGES:
        layers = {f"layers.*.{theirs}": f"blocks.*.{own}" for theirs, own in CONVNEXT_BLOCK.items()}
        layers |= {f"downsampling_layer.{part}": f"downsample.{part}" for part in (0, 1)}
        yield from _alike(layers, f"backbone.encoder.stages.{stage}",
                          f"backbone.body.stages_{stage}")  # fmt: skip


def _alike(names: Mapping[str, str], theirs: str, ours: str) -> Iterator[tuple[str, str, str]]:
    """Of modules that files and modules name alike, below two prefixes."""
    for name, own in names.items():
        yield f"{theirs}.{name}", f"{theirs}.{name}", f"{ours}.{own}"


# What reading sizes off tensors raises where they are of another network, or made up.
MALFORMED = (KeyError, ValueError, IndexError, TypeError, ZeroDivisionError, RuntimeError)


class Layout(NamedTuple):
    """How a network lies in a file.

    Attributes:
        names: of its modules.
        joint: the projections of queries, keys and values that are one tensor here.
    """

    names: Names
    joint: str


LAYOUTS = {
    "segformer": Layout(tuple(_segformer()), "kv"),
    "swin": Layout(tuple(_swin()), "qkv"),
    "convnext": Layout(tuple(_convnext()), ""),
}


def kind_of(state: Mapping[str, Tensor]) -> str | None:
    """Which of LAYOUTS a state dict of transformers' is in; None for other names."""
    if "decode_head.linear_fuse.weight" in state:
        return "segformer"
    if "decode_head.fpn_bottleneck.conv.weight" not in state:
        return None
    kinds = {"backbone.embeddings.patch_embeddings.weight": "convnext",
             "backbone.embeddings.patch_embeddings.projection.weight": "swin",
             "backbone.swin.embeddings.patch_embeddings.projection.weight": "swin"}  # fmt: skip
    return next((kind for key, kind in kinds.items() if key in state), None)


def recognised(state: dict[str, Tensor]) -> Recognised | None:
    """The network that a state dict of transformers' is of; None for other names."""
    kind = kind_of(state)
    if kind is None:
        return None
    ours = renamed(state, {})
    try:
        body, overrides = architecture(kind, ours, {})
        count = len(ours["head.classifier.bias"])
    except MALFORMED:
        return None
    system = "SegFormer" if kind == "segformer" else "UPerNet"
    return Recognised(f"{system} {body}", overrides, count)


def renamed(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under our names, whatever their sizes; `own` is not needed for that.

    Those of shapes that no such network has stay as they are.
    """
    kind = kind_of(state)
    if kind is None:
        return state
    layout = LAYOUTS[kind]
    places = {name: ours for *theirs, ours in layout.names for name in theirs}
    ours = {_place(key, places) or key: value
            for key, value in state.items() if not key.endswith(UNUSED)}  # fmt: skip
    try:
        ours = _joined(ours, layout.joint)
        return _other_head(ours, to_ours=True) if kind == "segformer" else ours
    except MALFORMED:
        return state


def in_their_layout(kind: str, state: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """Tensors of ours under the names of transformers; None where it has no such network."""
    layout = LAYOUTS[kind]
    places = {ours: file for file, _, ours in layout.names}
    if kind == "segformer":
        if "head.projections.0.weight" not in state:  # norms behind them, as MMSegmentation has
            return None
        state = _other_head(state, to_ours=False)
    state = _parted(state, layout.joint)
    theirs = {_place(key, places): value for key, value in state.items()}
    if None in theirs:
        return None
    return {key: value.contiguous() for key, value in theirs.items() if key is not None}


def _place(key: str, places: Mapping[str, str]) -> str | None:
    """A tensor's name by those of the modules; None for a name of no module."""
    module, _, leaf = key.rpartition(".")
    for name, end in ((key, ""), (module, f".{leaf}")):
        if name in places:
            return places[name] + end
        parts = name.split(".")
        for index, part in enumerate(parts):
            starred = ".".join([*parts[:index], "*", *parts[index + 1 :]])
            if part.isdecimal() and starred in places:
                return places[starred].replace("*", part) + end
    return None


def _joined(state: dict[str, Tensor], joint: str) -> dict[str, Tensor]:
    """Projections of queries, keys, values as the one tensor that we have for them."""
    result = dict(state)
    for key in state if joint else ():
        before, found, leaf = key.partition(f".attn.{joint[0]}.")
        names = [f"{before}.attn.{part}.{leaf}" for part in joint]
        if found and all(name in result for name in names):
            result[f"{before}.attn.{joint}.{leaf}"] = torch.cat([result.pop(n) for n in names])
    return result


def _parted(state: dict[str, Tensor], joint: str) -> dict[str, Tensor]:
    """The other way round."""
    result = dict(state)
    for key in state if joint else ():
        before, found, leaf = key.partition(f".attn.{joint}.")
        if found:
            parts = result.pop(key).chunk(len(joint))
            result |= {f"{before}.attn.{name}.{leaf}": part
                       for name, part in zip(joint, parts, strict=True)}  # fmt: skip
    return result


def _other_head(state: dict[str, Tensor], to_ours: bool) -> dict[str, Tensor]:
    """SegFormer's head: theirs projects by linear layers, and joins the last map first."""
    result = dict(state)
    for stage in STAGES:
        key = f"head.projections.{stage}.weight"
        if key in result:
            weight = result[key].flatten(1)
            result[key] = weight[:, :, None, None] if to_ours else weight
    joint = "head.fusion.0.weight"
    result[joint] = torch.cat(result[joint].chunk(len(STAGES), 1)[::-1], 1)
    return result
