"""Networks of github.com/huggingface/transformers, as the Hugging Face hub keeps them.

Files keep the names of transformers 4; the modules of transformers 5 have others. Both are read,
and the first are written, which either of them reads.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from segtrain.zoo import mask_classification
from segtrain.zoo.entry import Recognised
from segtrain.zoo.layouts import SEMANTIC, Joint
from segtrain.zoo.sizes import STAGES, architecture

LAYOUTS = SEMANTIC | mask_classification.LAYOUTS
# What nothing reads: buffers, a norm behind the last block of Swin, and the weights of a loss.
UNUSED = (".relative_position_index", ".swin.layernorm.weight", ".swin.layernorm.bias",
          "criterion.empty_weight")  # fmt: skip
# What reading sizes off tensors raises where they are of another network, or made up.
MALFORMED = (KeyError, ValueError, IndexError, TypeError, ZeroDivisionError, RuntimeError)
SYSTEMS = {"segformer": "SegFormer", "swin": "UPerNet", "convnext": "UPerNet",
           **mask_classification.SYSTEMS}  # fmt: skip


def kind_of(state: Mapping[str, Tensor]) -> str | None:
    """Which of LAYOUTS a state dict of transformers' is in; None for other names."""
    if "decode_head.linear_fuse.weight" in state:
        return "segformer"
    if "decode_head.fpn_bottleneck.conv.weight" not in state:
        return mask_classification.kind_of(state)
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
        if kind in mask_classification.LAYOUTS:
            body, overrides = mask_classification.architecture(kind, ours, {})
            count = mask_classification.num_classes(ours)
        else:
            body, overrides = architecture(kind, ours, {})
            count = len(ours["head.classifier.bias"])
    except MALFORMED:
        return None
    return Recognised(f"{SYSTEMS[kind]} {body}", overrides, count)


def renamed(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under our names, whatever their sizes; `own` is not needed for that.

    Those of shapes that no such network has stay as they are.
    """
    kind = kind_of(state)
    if kind is None:
        return state
    layout = LAYOUTS[kind]
    places = {name: ours for *theirs, ours in layout.names for name in theirs}
    ours = {_place(key.removeprefix(mask_classification.PREFIX), places) or key: value
            for key, value in state.items() if not key.endswith(UNUSED)}  # fmt: skip
    try:
        ours = _joined(ours, layout.joints)
        if kind in mask_classification.LAYOUTS:
            return mask_classification.with_grid(ours)
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
    state = _parted(state, layout.joints)
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


def _joined(state: dict[str, Tensor], joints: tuple[Joint, ...]) -> dict[str, Tensor]:
    """Projections of queries, keys, values as the one tensor that we have for them."""
    result = dict(state)
    for parts, whole in joints:
        for key in state:
            before, found, leaf = key.partition(parts[0])
            names = [f"{before}{part}{leaf}" for part in parts]
            if found and all(name in result for name in names):
                joined = torch.cat([result.pop(name) for name in names])
                result[f"{before}{whole}{leaf}"] = joined
    return result


def _parted(state: dict[str, Tensor], joints: tuple[Joint, ...]) -> dict[str, Tensor]:
    """The other way round."""
    result = dict(state)
    for parts, whole in joints:
        for key in state:
            before, found, leaf = key.partition(whole)
            if found:
                chunks = result.pop(key).chunk(len(parts))
                result |= {f"{before}{name}{leaf}": chunk
                           for name, chunk in zip(parts, chunks, strict=True)}  # fmt: skip
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
