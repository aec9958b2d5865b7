"""Every architecture file in conf/: shapes, gradients, odd sizes; a new one is tested unasked."""

import copy

import pytest
import torch
from conftest import composed
from torch import nn

from segtrain.build import build_model
from segtrain.cli.main import options

NAMES = options("architecture")
CLASSES = 5


def small(name: str, *overrides: str) -> nn.Module:
    """The architecture of conf/ with all its parts on a small backbone."""
    config = composed(
        f"architecture={name}",
        "architecture.backbone.weights=none",
        "architecture.backbone.multi_grid=null",
        "architecture.backbone.name=test_resnet",
        *overrides,
    )
    torch.manual_seed(0)
    return build_model(config, CLASSES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(64, 64), (33, 47), (65, 129), (1, 1)])
def test_any_size_in_evaluation(name, size):
    model = small(name).eval()
    with torch.no_grad():
        outputs = model(torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8))
    stride = model.backbone.output_stride
    expected = [-(-length // stride) for length in size]
    assert outputs["logits"].shape == (2, CLASSES, *expected)
    assert set(outputs) == {"logits"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("batch", "size"), [(2, (64, 64)), (1, (33, 47))])
def test_every_parameter_learns(name, batch, size):
    model = small(name).train()
    outputs = model(torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8))
    sum(value.square().mean() for value in outputs.values()).backward()
    without = [
        n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]
    assert not without


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_survives_saving(name, tmp_path):
    model, other = small(name), small(name)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    torch.save(model.state_dict(), tmp_path / "m.pt")
    other.load_state_dict(torch.load(tmp_path / "m.pt", weights_only=True))
    image = torch.randint(0, 256, (1, 3, 48, 48), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(model.eval()(image)["logits"], other.eval()(image)["logits"])


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast_and_copy(name):
    model = copy.deepcopy(small(name)).eval()
    image = torch.randint(0, 256, (1, 3, 40, 40), dtype=torch.uint8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model(image)["logits"].isfinite().all()


def test_deeplabv3_rates_follow_the_output_stride():
    """Section 3.3: rates (6, 12, 18) at output stride 16, doubled at 8."""
    for stride, rates in ((16, [6, 12, 18]), (8, [12, 24, 36])):
        model = small("deeplabv3", f"architecture.backbone.output_stride={stride}")
        convs = [branch[0] for branch in model.head.aspp.branches]
        assert [conv.dilation[0] for conv in convs] == [1, *rates]
        assert convs[0].kernel_size == (1, 1)


def test_aspp_beyond_the_map_is_its_centre_weight():
    """A 3x3 convolution whose rate exceeds the map sees only padding around its centre."""
    from segtrain.architecture.semantic.deeplabv3 import ASPP

    aspp = ASPP(4, 6, [12]).eval()
    x = torch.randn(1, 4, 5, 5)
    conv = aspp.branches[1][0]
    centre = nn.functional.conv2d(x, conv.weight[:, :, 1:2, 1:2])
    torch.testing.assert_close(conv(x), centre, atol=1e-5, rtol=1e-5)


def test_deeplabv3_parameters_of_the_paper():
    """ResNet-101 and the paper's head, 21 classes: 58,040,661 by the layer list."""
    config = composed("architecture=deeplabv3", "architecture.backbone.weights=none")
    with torch.device("meta"):
        model = build_model(config, 21)
    assert sum(parameter.numel() for parameter in model.parameters()) == 58_040_661
