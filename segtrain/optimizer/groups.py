"""Parameter groups: backbone and head, biases apart where they learn faster or do not decay."""

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

MATRICES = (_ConvNd, nn.Linear)
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)


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
        decay_norm_and_bias: if false, vectors are not decayed: biases and the factors of norms,
            whatever their axes, such as (1, C, 1, 1). A convolution's or linear layer's weight is
            a matrix even where it has a single row; so are EncNet's codewords.

    Returns:
        Non-empty groups; every trainable parameter is in exactly one.
    """
    matrices = {id(m.weight) for m in model.modules() if isinstance(m, MATRICES)}
    norms = {id(p) for m in model.modules() if isinstance(m, NORMS) for p in m.parameters()}
    groups: dict[str, dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = "backbone" if name.startswith("backbone.") else "head"
        is_matrix = id(parameter) in matrices or parameter.numel() > max(parameter.shape, default=1)
        decays = decay_norm_and_bias or is_matrix
        is_bias = name.endswith("bias") and id(parameter) not in norms and bias_multiplier != 1
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
