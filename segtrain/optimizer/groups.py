"""Parameter groups: backbone and head, each with and without weight decay."""

from torch import nn


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    head_multiplier: float,
    decay_norm_and_bias: bool,
) -> list[dict]:
    """Groups for a torch optimiser, named `backbone`, `head`, `backbone_no_decay`, ...

    Args:
        model: has a `backbone` attribute; all its other parameters are the head.
        lr: of the backbone.
        weight_decay: L2 factor.
        head_multiplier: the head learns at lr times this.
        decay_norm_and_bias: if false, vectors (biases, norm scales) are not decayed.

    Returns:
        Non-empty groups; every trainable parameter is in exactly one.
    """
    groups: dict[str, dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = "backbone" if name.startswith("backbone.") else "head"
        decays = decay_norm_and_bias or parameter.ndim > 1
        group = groups.setdefault(
            part if decays else f"{part}_no_decay",
            {
                "name": part if decays else f"{part}_no_decay",
                "params": [],
                "lr": lr * (head_multiplier if part == "head" else 1.0),
                "weight_decay": weight_decay if decays else 0.0,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())
