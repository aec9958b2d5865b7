"""Parameter groups: backbone and head, biases and kinds that do not decay apart."""

import re
from typing import Literal, get_args

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from segtrain.errors import UserError

Kind = Literal["bias", "norm", "depthwise", "position", "embedding"]
KINDS = get_args(Kind)  # of parameters that a recipe may leave undecayed
BLOCK = re.compile(r"backbone\.body\.blocks\.(\d+)\.")  # of a plain transformer of timm
EMBEDDINGS = re.compile(r"backbone\.body\.(patch_embed\.|pos_embed|cls_|reg_token|norm_pre\.)")
POSITIONS = ("pos_embed", "pos_embed_window", "relative_position_bias_table")  # timm's names
EMBEDDED = ("query_features", "query_positions", "level_embedding")  # of mask classification
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    head_multiplier: float,
    bias_multiplier: float,
    no_decay: list[Kind],
    layer_decay: float = 1.0,
    whole_last: bool = False,
) -> list[dict]:
    """Groups for a torch optimiser, named `backbone`, `head`, `backbone_no_decay`, `head_bias`, ...

    With a decay over layers, those of its embeddings and blocks are `backbone_0`, `backbone_1`, ...

    Args:
        model: has a `backbone` attribute; all its other parameters are the head.
        lr: of the backbone.
        weight_decay: L2 factor.
        head_multiplier: the head learns at lr times this.
        bias_multiplier: biases of convolutions and linear layers learn at this times their part's
            rate (2 in Caffe's recipes); those of norm layers do not.
        no_decay: kinds that are not decayed, see `parameter_kinds`.
        layer_decay: a plain transformer's last block learns at this times the backbone's rate, the
            one before it at its square, and so on down to the embeddings (BEiT, Bao et al. 2022).
        whole_last: whether the last block learns at the whole rate instead, and the one before it
            at this times it; embeddings then learn as the first block (EoMT).

    Returns:
        Non-empty groups; every trainable parameter is in exactly one.

    Raises:
        UserError: there is no such kind, or the rate decays over the blocks of another network.
    """
    if unknown := [kind for kind in no_decay if kind not in KINDS]:
        raise UserError(f"optimizer.no_decay={no_decay}: no kind {', '.join(map(str, unknown))}; "
                        f"choose from {', '.join(KINDS)}")  # fmt: skip
    kinds = parameter_kinds(model)
    heights = {} if layer_decay == 1 else layer_heights(model, whole_last)
    groups: dict[str, dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = "backbone" if name.startswith("backbone.") else "head"
        decays = kinds[name] not in no_decay
        is_bias = kinds[name] == "bias" and bias_multiplier != 1
        height = heights.get(name, 0)
        layer = f"_{max(heights.values()) - height}" if height else ""
        title = part + layer + ("_bias" if is_bias else "" if decays else "_no_decay")
        group = groups.setdefault(
            title,
            {
                "name": title,
                "params": [],
                "lr": lr
                * (head_multiplier if part == "head" else 1.0)
                * (bias_multiplier if is_bias else 1.0)
                * layer_decay**height,
                "weight_decay": weight_decay if decays else 0.0,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def layer_heights(model: nn.Module, whole_last: bool) -> dict[str, int]:
    """How far below the head each parameter of a plain transformer's blocks and embeddings is, by
    name: 1 in the last block, one more in the embeddings than in the first; or, where the last
    block is taken for whole, 0 in it, and in the embeddings as in the first.

    Raises:
        UserError: the backbone is another.
    """
    names = [name for name, _ in model.named_parameters()]
    blocks = {name: int(found[1]) for name in names if (found := BLOCK.match(name))}
    embeddings = [name for name in names if EMBEDDINGS.match(name)]
    if not blocks or not embeddings:
        raise UserError("optimizer.layer_decay needs a plain vision transformer for a backbone, "
                        "as of architecture/backbone=vit; set optimizer.layer_decay=1")  # fmt: skip
    depth = 1 + max(blocks.values())
    top = 0 if whole_last else 1
    heights = {name: depth - 1 - block + top for name, block in blocks.items()}
    return heights | dict.fromkeys(embeddings, depth - 1 + 2 * top)


def parameter_kinds(model: nn.Module) -> dict[str, str]:
    """What each parameter is, by its name.

    `depthwise`: kernels that see one channel each. `weight`: every other kernel or matrix, even
    where it has a single row; so are EncNet's codewords. `bias`: of convolutions and linear layers.
    `norm`: scales and shifts of norm layers, and other factors of channels, whatever their axes,
    such as (1, C, 1, 1). `position`: of transformers, absolute embeddings and tables of relative
    biases. `embedding`: of queries and of the levels of a pyramid.
    """
    norms, matrices = set(), {}
    for module in model.modules():
        if isinstance(module, NORMS):
            norms |= {id(parameter) for parameter in module.parameters()}
        elif isinstance(module, _ConvNd | nn.Linear):
            groups = getattr(module, "groups", 1)
            is_depthwise = 1 < groups == module.in_channels
            matrices[id(module.weight)] = "depthwise" if is_depthwise else "weight"
    kinds = {}
    for name, parameter in model.named_parameters():
        is_vector = parameter.numel() == max(parameter.shape, default=1)
        is_bias = name.endswith("bias") and id(parameter) not in norms
        other = "bias" if is_bias else "norm" if is_vector else "weight"
        if name.endswith(POSITIONS):
            other = "position"
        elif name.endswith(EMBEDDED):
            other = "embedding"
        kinds[name] = matrices.get(id(parameter), other)
    return kinds
