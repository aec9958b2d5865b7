"""Parameter groups: backbone and head, biases and kinds that do not decay apart."""

from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from segtrain.errors import UserError

Kind = Literal["bias", "norm", "depthwise", "position"]
KINDS = ("bias", "norm", "depthwise", "position")  # of parameters that a recipe may leave undecayed
POSITIONS = ("pos_embed", "relative_position_bias_table")  # timm's names
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    head_multiplier: float,
    bias_multiplier: float,
    no_decay: list[Kind],
) -> list[dict]:
    """Groups for a torch optimiser, named `backbone`, `head`, `backbone_no_decay`, `head_bias`, ...

    Args:
        model: has a `backbone` attribute; all its other parameters are the head.
        lr: of the backbone.
        weight_decay: L2 factor.
        head_multiplier: the head learns at lr times this.
        bias_multiplier: biases of convolutions and linear layers learn at this times their part's
            rate (2 in Caffe's recipes); those of norm layers do not.
        no_decay: kinds that are not decayed, see `parameter_kinds`.

    Returns:
        Non-empty groups; every trainable parameter is in exactly one.

    Raises:
        UserError: there is no such kind.
    """
    if unknown := [kind for kind in no_decay if kind not in KINDS]:
        raise UserError(f"optimizer.no_decay={no_decay}: no kind {', '.join(map(str, unknown))}; "
                        f"choose from {', '.join(KINDS)}")  # fmt: skip
    kinds = parameter_kinds(model)
    groups: dict[str, dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = "backbone" if name.startswith("backbone.") else "head"
        decays = kinds[name] not in no_decay
        is_bias = kinds[name] == "bias" and bias_multiplier != 1
        title = part + ("_bias" if is_bias else "" if decays else "_no_decay")
        group = groups.setdefault(
            title,
            {
                "name": title,
                "params": [],
                "lr": lr
                * (head_multiplier if part == "head" else 1.0)
                * (bias_multiplier if is_bias else 1.0),
                "weight_decay": weight_decay if decays else 0.0,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def parameter_kinds(model: nn.Module) -> dict[str, str]:
    """What each parameter is, by its name.

    `depthwise`: kernels that see one channel each. `weight`: every other kernel or matrix, even
    where it has a single row; so are EncNet's codewords. `bias`: of convolutions and linear layers.
    `norm`: scales and shifts of norm layers, and other factors of channels, whatever their axes,
    such as (1, C, 1, 1). `position`: of transformers, absolute embeddings and tables of relative
    biases.
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
        kinds[name] = matrices.get(id(parameter), other)
    return kinds
