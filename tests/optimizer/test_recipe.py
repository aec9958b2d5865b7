import pytest
import torch
from conftest import architectures, composed, small_network
from torch import nn

from segtrain.assembly import build_model, make
from segtrain.configuration.folder import options
from segtrain.errors import UserError
from segtrain.optimizer.groups import parameter_groups
from segtrain.optimizer.schedule import delayed_poly, poly, step_decay


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 2, 1)


@pytest.mark.parametrize("name", options("optimizer"))
def test_rate_of_every_group_at_start_middle_and_end(name):
    steps = name.endswith("_step")
    own = ["optimizer.milestones=[40,80]"] if steps else ["optimizer.power=0.9"]
    if name == "adamw_two_stage":
        own += ["optimizer.backbone_warmup_steps=0"]
    recipe = make(
        composed(
            f"optimizer={name}",
            "optimizer.lr=0.1",
            "optimizer.head_multiplier=10",
            "optimizer.warmup_steps=0",
            *own,
        )["optimizer"]
    )
    optimizer, schedule = recipe(Net(), max_steps=100)
    seen = {}
    for step in range(101):
        seen[step] = {group["name"]: group["lr"] for group in optimizer.param_groups}
        optimizer.step()
        schedule.step()
    for step in (0, 39, 40, 50, 100):
        factor = 0.1 ** ((step >= 40) + (step >= 80)) if steps else (1 - step / 100) ** 0.9
        for group, rate in seen[step].items():
            base = 1.0 if group.startswith("head") else 0.1
            assert rate == pytest.approx(base * factor), (step, group)


def test_power_zero_is_a_fixed_rate():
    assert {poly(step, 100, 0, warmup_steps=0) for step in range(101)} == {1.0}


def test_warm_up_rises_linearly_into_poly():
    rates = [poly(step, 100, 0.9, warmup_steps=10) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[4] == pytest.approx(0.5 * (1 - 0.04) ** 0.9)
    assert rates[9] == pytest.approx((1 - 0.09) ** 0.9)
    assert rates[100] == 0


def test_warm_up_rises_linearly_into_steps():
    rates = [step_decay(step, 0.1, [20, 30], 10, warmup_factor=0.0) for step in range(40)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[19] == 1.0
    assert rates[20] == pytest.approx(0.1)
    assert rates[30] == pytest.approx(0.01)


def test_a_backbone_waits_while_new_parts_warm_up():
    """EoMT: 500 steps of the new parts, 1000 of the backbone; poly decay of each from then on."""
    head = [delayed_poly(step, 10_000, 0.9, wait=0, warmup_steps=500) for step in range(10_001)]
    body = [delayed_poly(step, 10_000, 0.9, wait=500, warmup_steps=1000) for step in range(10_001)]
    assert body[:500] == [0.0] * 500
    assert head[249] == body[999] == pytest.approx(0.5)
    assert head[499] == head[500] == body[1499] == body[1500] == 1.0
    assert head[5250] == pytest.approx(0.5**0.9)
    assert body[5750] == pytest.approx(0.5**0.9)
    assert head[10_000] == body[10_000] == 0


def test_new_parts_of_a_plain_transformer_learn_first():
    """And the last block at the whole rate, embeddings at that of the first block."""
    net = plain_transformer()
    own = ["optimizer.lr=1.0", "optimizer.warmup_steps=1", "optimizer.backbone_warmup_steps=0",
           "optimizer.layer_decay=0.8"]  # fmt: skip
    recipe = make(composed("optimizer=adamw_two_stage", *own)["optimizer"])
    optimizer, schedule = recipe(net, max_steps=1_000_000)
    rates = []
    for _ in range(2):
        of = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        rates.append({name: of[id(p)] for name, p in net.named_parameters()})
        optimizer.step()
        schedule.step()
    assert {name for name, rate in rates[0].items() if rate} == {
        name for name, _ in net.named_parameters() if not name.startswith("backbone.")
    }
    body = {name.removeprefix("backbone.body."): rate for name, rate in rates[1].items()}
    assert body["blocks.5.mlp.fc1.weight"] == body["norm.weight"] == pytest.approx(1.0)
    assert body["blocks.4.mlp.fc1.weight"] == pytest.approx(0.8)
    first = body["blocks.0.mlp.fc1.weight"]
    assert first == body["pos_embed"] == body["patch_embed.proj.weight"] == pytest.approx(0.8**5)


def test_warm_up_starts_from_a_share_of_the_rate():
    """Detectron's starts from a third."""
    rates = [step_decay(step, 0.1, [600], warmup_steps=500, warmup_factor=1 / 3)
             for step in range(601)]  # fmt: skip
    assert rates[0] == pytest.approx(1 / 3, abs=2e-3)
    assert rates[249] == pytest.approx(2 / 3)
    assert rates[499] == rates[599] == 1.0
    assert rates[600] == pytest.approx(0.1)


@pytest.mark.parametrize("decay_all", [True, False])
def test_groups_hold_every_parameter_once(decay_all):
    net = Net()
    groups = parameter_groups(net, 0.1, 1e-4, 5.0, 2.0, [] if decay_all else ["bias", "norm"])
    held = [parameter for group in groups for parameter in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in net.parameters()}
    assert len(held) == len(list(net.parameters()))
    for group in groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (1e-4 if decay_all or parameter.ndim > 1 else 0)


# Learned factors of channels or codewords that are no weights of a product; see `parameter_groups`.
SCALES = {
    "parsenet": {"norms.0.scale": False, "norms.1.scale": False, "global_norm.scale": False},
    "encnet": {"context.encoding.codewords": True},
    **dict.fromkeys(
        ("linear", "dpt"), {"backbone.body.pos_embed": True, "backbone.body.cls_token": False}
    ),
    "eomt": {"backbone.body.pos_embed": True, "backbone.body.cls_token": False,
             "query_features": True},
    "mask2former": {
        **dict.fromkeys(("query_features", "query_positions", "level_embedding",
                         "pixel_decoder.level_embedding"), True),
        **{f"decoder.{layer}.{kind}_attention.in_proj_weight": True
           for layer in range(4) for kind in ("cross", "self")},
    },
}  # fmt: skip
KINDS = ("semantic", "instance", "mask_classification")


@pytest.mark.parametrize("name", [name for kind in KINDS for name in architectures(kind)])
def test_every_architecture_decays_weights_alone(name):
    """Matrices and kernels, and what else has several dimensions as it is listed above."""
    architecture = composed(f"architecture={name}", *small_network(f"architecture={name}"))
    model = make(architecture["architecture"], num_classes=3)
    groups = parameter_groups(model, 0.1, 1e-4, 1.0, 1.0, ["bias", "norm"])
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    layers = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    weights = {id(m.weight) for m in model.modules() if isinstance(m, layers)}
    for key, parameter in model.named_parameters():
        if id(parameter) in weights or parameter.ndim == 1:
            assert (id(parameter) in decayed) == (id(parameter) in weights), key
        else:
            assert (id(parameter) in decayed) == SCALES[name][key], key


def test_biases_of_convolutions_learn_faster_than_their_weights():
    """Caffe's recipes: biases at twice the rate, the head at ten times, without decay."""
    net = Net()
    groups = {g["name"]: g for g in parameter_groups(net, 0.1, 1e-4, 10.0, 2.0, ["bias", "norm"])}
    assert {name: group["lr"] for name, group in groups.items()} == pytest.approx(
        {"backbone": 0.1, "backbone_bias": 0.2, "backbone_no_decay": 0.1, "head": 1.0,
         "head_bias": 2.0})  # fmt: skip
    assert [id(p) for p in groups["backbone_bias"]["params"]] == [id(net.backbone[0].bias)]
    assert groups["head_bias"]["weight_decay"] == 0


def mixed() -> nn.Module:
    """A network with a parameter of every kind."""
    net = Net()
    net.backbone = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 4, 3, groups=2),
    )  # fmt: skip
    net.backbone.pos_embed = nn.Parameter(torch.zeros(1, 9, 4))
    net.query_features = nn.Parameter(torch.zeros(5, 4))
    return net


OF_KIND = {
    "bias": ["backbone.0.bias", "backbone.2.bias", "backbone.3.bias", "head.bias"],
    "norm": ["backbone.1.weight", "backbone.1.bias"],
    "depthwise": ["backbone.2.weight"],
    "position": ["backbone.pos_embed"],
    "embedding": ["query_features"],
}


@pytest.mark.parametrize("kind", OF_KIND)
def test_every_kind_alone_can_be_left_undecayed(kind):
    net = mixed()
    groups = parameter_groups(net, 0.1, 1e-4, 1.0, 1.0, [kind])
    still = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    assert [name for name, p in net.named_parameters() if id(p) in still] == OF_KIND[kind]


def test_no_such_kind():
    with pytest.raises(UserError, match=r"no_decay=\['norms'\]: no kind norms; choose from bias"):
        parameter_groups(Net(), 0.1, 1e-4, 1.0, 1.0, ["norms"])


def test_frozen_parameters_are_left_out():
    net = Net()
    net.backbone.requires_grad_(False)
    assert {g["name"] for g in parameter_groups(net, 0.1, 0.0, 1.0, 1.0, [])} == {"head"}


def plain_transformer() -> nn.Module:
    return build_model(
        composed("architecture=linear", "architecture.backbone.weights=none",
                 "architecture.backbone.name=test_vit"), 3
    )  # fmt: skip


def test_rates_decay_over_the_layers_of_a_plain_transformer():
    net = plain_transformer()
    groups = parameter_groups(net, 1.0, 0.1, 10.0, 1.0, ["norm"], layer_decay=0.5)
    names = [group["name"] for group in groups]
    assert len(set(names)) == len(names)  # of which each is logged
    assert {"backbone_0", "backbone_1", "backbone_6_no_decay", "backbone_no_decay"} <= set(names)
    parameters = [parameter for group in groups for parameter in group["params"]]
    assert {id(p) for p in parameters} == {id(p) for p in net.parameters()}
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    body = net.backbone.body
    expected = {
        10.0: [net.classifier.weight, net.norm.bias],
        1.0: [body.norm.weight],
        0.5: list(body.blocks[5].parameters()),
        0.5**6: list(body.blocks[0].parameters()),
        0.5**7: [body.pos_embed, body.cls_token, *body.patch_embed.parameters()],
    }
    for rate, parameters in expected.items():
        assert {rates[id(p)] for p in parameters} == {rate}


def test_layer_decay_of_another_network():
    with pytest.raises(UserError, match="layer_decay needs a plain vision transformer"):
        parameter_groups(Net(), 0.1, 0.0, 1.0, 1.0, [], layer_decay=0.8)


def test_one_step_is_torch_sgd():
    net, peer = Net(), Net()
    peer.load_state_dict(net.state_dict())
    recipe = make(composed("optimizer=sgd_poly")["optimizer"])
    optimizer, _ = recipe(net, max_steps=10)
    other = torch.optim.SGD(peer.parameters(), lr=0.007, momentum=0.9, weight_decay=1e-4)
    x = torch.randn(2, 3, 8, 8)
    for model, stepper in ((net, optimizer), (peer, other)):
        for _ in range(2):
            model.head(model.backbone(x)).square().mean().backward()
            stepper.step()
            stepper.zero_grad()
    for ours, theirs in zip(net.parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
