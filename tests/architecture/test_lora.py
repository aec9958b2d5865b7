import copy

import pytest
import torch
from conftest import composed
from torch import nn

from segtrain.architecture.lora import merge_low_rank
from segtrain.assembly import build_model, make
from segtrain.export.deployed import Deployed
from segtrain.optimizer.groups import parameter_groups


def with_low_rank(name: str = "test_vit", rank: int = 2) -> nn.Module:
    torch.manual_seed(0)
    model = build_model(
        composed("architecture=linear", "architecture.backbone.weights=none",
                 f"architecture.backbone.name={name}", "architecture.backbone.norm=false",
                 f"architecture.backbone.lora_rank={rank}", "architecture.backbone.lora_alpha=6"),
        3,
    )  # fmt: skip
    return model.eval()


def enliven(model: nn.Module) -> None:
    """As after some steps of training."""
    for name, parameter in model.named_parameters():
        if name.endswith(".up"):
            nn.init.normal_(parameter)


def test_only_low_rank_terms_and_the_head_learn():
    model = with_low_rank()
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    terms = {name for name in learning if name.startswith("backbone.")}
    assert learning - terms == {"norm.weight", "norm.bias", "classifier.weight", "classifier.bias"}
    # Six blocks of 64 channels: two factors each of the projections to 192 and to 64.
    assert sum(model.get_parameter(n).numel() for n in terms) == 6 * 2 * (64 + 192 + 64 + 64)
    groups = parameter_groups(model, 0.1, 0.1, 1.0, 1.0, ["bias", "norm"])
    assert sum(len(group["params"]) for group in groups) == len(learning)


def test_starts_as_the_network_that_was_loaded_and_adds_a_product():
    model = with_low_rank()
    plain = merge_low_rank(copy.deepcopy(model))
    image = torch.rand(1, 3, 32, 48) * 255
    with torch.no_grad():
        assert torch.equal(model(image)["logits"], plain(image)["logits"])
    enliven(model)
    layer = model.backbone.body.blocks[0].attn.qkv
    (term,) = layer.parametrizations.weight
    expected = plain.backbone.body.blocks[0].attn.qkv.weight + 6 / 2 * term.up @ term.down
    torch.testing.assert_close(layer.weight, expected)


@pytest.mark.parametrize("name", ["test_vit", "eva02_tiny_patch14_224"])
def test_a_graph_has_plain_weights(name):
    model = with_low_rank(name)
    enliven(model)
    image = torch.randint(0, 256, (1, 3, 42, 42), dtype=torch.uint8)
    with torch.no_grad():
        expected = model(image)["logits"]
    network = Deployed(model, make(composed()["inference"]), "logits").model
    assert not [name for name in network.state_dict() if "parametrizations" in name]
    with torch.no_grad():
        torch.testing.assert_close(network(image)["logits"], expected)


def test_low_rank_terms_compile_and_learn():
    model = with_low_rank().train()
    enliven(model)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    compiled(image)["logits"].square().mean().backward()
    learning = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.any() for p in learning)
