"""LoRA: Hu et al., Low-Rank Adaptation of Large Language Models, ICLR 2022 (arXiv 2106.09685)."""

import math

from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """A weight matrix plus the product of two narrow ones (section 4.1); at first, plus nothing.

    Args:
        weight: (out, in), which stays as it is.
        rank: columns of the one and rows of the other.
        alpha: their product is multiplied by alpha / rank.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        self.up = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        self.down = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.scale = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:  # (out, in) -> (out, in)
        return weight + self.scale * (self.up @ self.down)


def add_low_rank(body: nn.Module, rank: int, alpha: float) -> None:
    """Lets only low-rank terms of its attentions' projections learn, queries to output.

    Args:
        body: a transformer with `blocks`, each with its projections in `attn`.
        rank, alpha: see `LowRank`.
    """
    body.requires_grad_(False)
    for block in body.blocks:
        for layer in block.attn.children():
            if isinstance(layer, nn.Linear):
                term = LowRank(layer.weight, rank, alpha)
                parametrize.register_parametrization(layer, "weight", term)


def merge_low_rank(model: nn.Module) -> nn.Module:
    """Puts plain layers, with their sums for weights, for those with low-rank terms; in place."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if parametrize.is_parametrized(layer, "weight"):
                # Not `remove_parametrizations`, which breaks copies of the network.
                plain = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
                plain.weight = nn.Parameter(layer.weight.detach(), requires_grad=False)
                plain.bias = layer.bias
                setattr(parent, name, plain.train(layer.training))
    return model
