"""Parameter groups: backbone and head, biases apart where they learn faster or do not decay."""

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from segtrain.architecture.semantic.parsenet import L2Norm

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, L2Norm)


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    head_multiplier: float,
    bias_multiplier: float,
    decay_norm_and_bias: bool,
) -> list[dict]:
    """Groups for a torch optimiser, named `backbone`, `head`, `backbone_no_decay`, `head_bias`, ...

    Args:
        model: has a `backbone` attribute; all its other parameters are the head.
        lr: of the backbone.
        weight_decay: L2 factor.
        head_multiplier: the head learns at lr times this.
        bias_multiplier: biases of convolutions and linear layers learn at this times their part's
            rate (2 in Caffe's recipes); those of norm layers do not.
        decay_norm_and_bias: if false, vectors (biases) and what norm layers learn are not decayed.

    Returns:
        Non-empty groups; every trainable parameter is in exactly one.
    """
    norms = {id(p) for m in model.modules() if isinstance(m, NORMS) for p in m.parameters()}
    groups: dict[str, dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = "backbone" if name.startswith("backbone.") else "head"
        is_norm = id(parameter) in norms
        decays = decay_norm_and_bias or (parameter.ndim > 1 and not is_norm)
        is_bias = name.endswith("bias") and not is_norm and bias_multiplier != 1
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
