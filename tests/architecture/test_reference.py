"""Parts against slow formulas, torch modules composed by hand, and other public implementations."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import composed, small_network
from torch import nn

from segtrain.architecture.semantic.deconvnet import DeconvNet, SwitchVGG16, unpool
from segtrain.architecture.semantic.deeplabv3 import ASPP
from segtrain.architecture.semantic.encnet import ContextEncoding, Encoding
from segtrain.architecture.semantic.parsenet import L2Norm
from segtrain.architecture.semantic.pspnet import PyramidPooling
from segtrain.assembly import build_model

TOLERANCE = {"atol": 1e-4, "rtol": 0}


def network(architecture: str, *overrides: str, classes: int = 3) -> nn.Module:
    """Built from conf/ at full depth with random weights and lively batch norms, in evaluation."""
    torch.manual_seed(0)
    config = composed(f"architecture={architecture}", "architecture.backbone.weights=none",
                      "trainer.channels_last=false", *overrides)  # fmt: skip
    model = build_model(config, classes)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def test_l2_norm_is_the_formula():
    x, norm = torch.randn(2, 5, 3, 4), L2Norm(5, 10.0)
    with torch.no_grad():
        norm.scale.uniform_(5, 15)
        got = norm(x)
    for n, i, j in np.ndindex(2, 3, 4):
        cell = x[n, :, i, j].double()
        length = (cell.square().sum() + 1e-10).sqrt()
        expected = norm.scale[0, :, 0, 0].double() * cell / length
        torch.testing.assert_close(got[n, :, i, j].double(), expected, **TOLERANCE)


def test_parsenet_is_a_classifier_of_the_concatenation():
    """Section 3.1: features and unpooled global average, normalised, concatenated, classified."""
    chosen = "architecture=parsenet"
    model = network("parsenet", *small_network(chosen), "architecture.local_maps=2")
    image = torch.randint(0, 256, (1, 3, 57, 49), dtype=torch.uint8)
    with torch.no_grad():
        *_, conv5, fc7 = model.backbone(image)
        pooled = fc7.mean((2, 3), keepdim=True).expand_as(fc7)
        parts = [model.norms[0](conv5), model.norms[1](fc7), model.global_norm(pooled)]
        weights = [*(c.weight for c in model.classifiers), model.global_classifier.weight]
        expected = F.conv2d(torch.cat(parts, 1), torch.cat(weights, 1), model.classifiers[-1].bias)
        torch.testing.assert_close(model(image)["logits"], expected, **TOLERANCE)


def test_encoding_is_the_direct_formula():
    """Section 3.1: residuals to every codeword, one by one."""
    layer, x = Encoding(6, 4), torch.randn(2, 6, 3, 5)
    with torch.no_grad():
        layer.codewords.normal_()
        layer.scale.uniform_(-2, 0)
        got = layer(x)
    cells = x.flatten(2).transpose(1, 2)
    for n in range(2):
        expected = torch.zeros(4, 6)
        for cell in cells[n]:
            residuals = cell - layer.codewords.detach()
            weights = (layer.scale.detach() * residuals.square().sum(1)).softmax(0)
            expected += weights[:, None] * residuals
        torch.testing.assert_close(got[n], expected, **TOLERANCE)


def test_context_encoding_scales_channels():
    layer = ContextEncoding(6, 4, 3).eval()
    x = torch.randn(2, 6, 5, 5)
    with torch.no_grad():
        codes = layer.norm(layer.encoding(layer.conv(x))).relu().mean(1)
        gamma = torch.sigmoid(codes @ layer.attention.weight.T + layer.attention.bias)
        scaled, presence = layer(x)
    expected = torch.relu(x + x * gamma[:, :, None, None])
    torch.testing.assert_close(scaled, expected.detach(), **TOLERANCE)
    assert presence.shape == (2, 3)


def slow_unpool(x: np.ndarray, pooled_from: np.ndarray) -> np.ndarray:
    """Values of a 2x2-pooled plane put back where the maximum of each window stood."""
    out = np.zeros_like(pooled_from)
    for i, j in np.ndindex(*x.shape):
        window = pooled_from[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        row, column = np.unravel_index(window.argmax(), (2, 2))
        out[2 * i + row, 2 * j + column] = x[i, j]
    return out


def test_unpooling_puts_values_where_the_maxima_were():
    """DeconvNet section 3.1, with the first stage's switches and odd sizes."""
    encoder = SwitchVGG16("none", [4, 4, 6, 6, 8], 16, 1)
    encoder.eval()
    image = torch.randint(0, 256, (1, 3, 45, 39), dtype=torch.uint8)
    with torch.no_grad():
        _, switches = encoder(image)
        before = encoder.stages[0](encoder.normalize(image))
        values = torch.randn(1, 4, 22, 19)
        got = unpool(values, *switches[0])
        torch.use_deterministic_algorithms(True)
        again = unpool(values, *switches[0])
        torch.use_deterministic_algorithms(False)
    assert torch.equal(got, again)
    for channel in range(4):
        expected = slow_unpool(values[0, channel].numpy(), before[0, channel].numpy())
        assert np.array_equal(got[0, channel].numpy(), expected)


def test_deconvnet_mirrors_its_encoder():
    """Layer list of the paper's table: 14 deconvolutions, then scores at full resolution."""
    with torch.device("meta"):
        model = DeconvNet(SwitchVGG16("none", [64, 128, 256, 512, 512], 4096, 7), 21)
    shapes = [
        (m.in_channels, m.out_channels, m.kernel_size[0])
        for m in model.modules()
        if isinstance(m, nn.ConvTranspose2d)
    ]
    assert shapes == [
        (4096, 512, 7),
        (512, 512, 3), (512, 512, 3), (512, 512, 3),
        (512, 512, 3), (512, 512, 3), (512, 256, 3),
        (256, 256, 3), (256, 256, 3), (256, 128, 3),
        (128, 128, 3), (128, 64, 3),
        (64, 64, 3), (64, 64, 3),
    ]  # fmt: skip
    assert model.backbone.minimum_size == 224


@pytest.mark.parametrize("size", [(13, 17), (60, 60)])
def test_pyramid_pooling_equals_smp(size):
    smp = pytest.importorskip("segmentation_models_pytorch.decoders.pspnet.decoder")
    torch.manual_seed(0)
    peer = smp.PSPModule(16, sizes=(1, 2, 3, 6)).eval()
    ours = PyramidPooling(16, [1, 2, 3, 6], align_corners=True, channels=4).eval()
    for block, reduction in zip(peer.blocks, ours.reductions, strict=True):
        conv_norm = block.pool[1]
        reduction[0].load_state_dict({"weight": conv_norm[0].weight}, strict=True)
        if isinstance(conv_norm[1], nn.BatchNorm2d):
            reduction[1].load_state_dict(conv_norm[1].state_dict())
        else:  # smp leaves batch norm out of the 1x1 level and has a bias instead
            nn.init.zeros_(conv_norm[0].bias)
            reduction[1].eps = 0.0
    x = torch.randn(2, 16, *size)
    with torch.no_grad():
        expected, got = peer(x), ours(x)
    expected = torch.cat([expected[:, 16:], expected[:, :16]], 1)  # smp has the input last
    assert (expected - got).abs().max() <= 1e-4


def test_separable_aspp_equals_smp():
    smp = pytest.importorskip("segmentation_models_pytorch.decoders.deeplabv3.decoder")
    torch.manual_seed(0)
    peer = smp.ASPP(12, 8, [2, 4, 6], separable=True, dropout=0.0).eval()
    ours = ASPP(12, 8, [2, 4, 6], separable=True).eval()
    theirs = [value for value in peer.state_dict().values() if value.ndim]
    mine = {key: value for key, value in ours.state_dict().items() if value.ndim}
    assert [v.shape for v in mine.values()] != []
    depthwise_norms = [k for k in mine if ".1." in k and k.startswith("branches") and
                       mine[k].shape == (12,)]  # fmt: skip
    # smp has no batch norm between depthwise and pointwise: make ours the identity but for ReLU,
    # and give the depthwise convolutions non-negative outputs, so that ReLU changes nothing.
    positive = [k for k in mine if mine[k].ndim == 4 and mine[k].shape[1] == 1]
    values = iter(theirs)
    with torch.no_grad():
        for key, value in mine.items():
            if key not in depthwise_norms:
                other = next(values)
                assert other.shape == value.shape
                if key in positive:
                    other.abs_()
                value.copy_(other)
        for branch in ours.branches[1:]:
            branch[1].eps = 0.0
        x = torch.rand(2, 12, 9, 11)
        assert (peer(x) - ours(x)).abs().max() <= 1e-4


def test_image_features_of_windows_are_resized_means():
    """A window of 3x4 cells on 5x9 has 3x6 places; one that covers the map has one."""
    torch.manual_seed(0)
    aspp = ASPP(4, 6, [2], separable=False, pooling_window=(3, 4), pooling_norm=False).eval()
    x = torch.randn(1, 4, 5, 9)
    conv = aspp.image_pooling[0]
    means = torch.stack([
        torch.stack([x[..., i : i + 3, j : j + 4].mean((2, 3)) for j in range(6)], 2)
        for i in range(3)
    ], 2)  # fmt: skip
    pooled = F.conv2d(means, conv.weight, conv.bias).relu()
    features = F.interpolate(pooled, (5, 9), mode="bilinear", align_corners=False)
    whole = F.conv2d(x.mean((2, 3), keepdim=True), conv.weight, conv.bias).relu()

    def expected(image: torch.Tensor) -> torch.Tensor:
        return aspp.project(torch.cat([*(branch(x) for branch in aspp.branches), image], 1))

    torch.testing.assert_close(aspp(x), expected(features), **TOLERANCE)
    aspp.pooling_window = (64, 128)
    torch.testing.assert_close(aspp(x), expected(whole.expand(-1, -1, 5, 9)), **TOLERANCE)


@pytest.mark.parametrize("rate", [7, 12, 36])
def test_aspp_beyond_the_map_is_its_centre_weight(rate):
    """A 3x3 convolution whose rate exceeds the map sees only padding around its centre."""
    aspp = ASPP(4, 6, [rate], separable=False).eval()
    x = torch.randn(1, 4, 5, 7)
    conv = aspp.branches[1][0]
    centre = F.conv2d(x, conv.weight[:, :, 1:2, 1:2])
    torch.testing.assert_close(conv(x), centre, atol=1e-5, rtol=1e-5)


def test_deeplabv2_takes_the_maximum_over_scales():
    """Scales 1, 0.75 and 0.5 of 321 pixels are 321, 241 and 161; scores meet on the first grid."""
    model = network("deeplabv2", *small_network("architecture=deeplabv2"))
    image = torch.randint(0, 256, (1, 3, 321, 97), dtype=torch.uint8)
    with torch.no_grad():
        scores = []
        for size in ((321, 97), (241, 73), (161, 49)):
            scaled = F.interpolate(image.float(), size, mode="bilinear", align_corners=True)
            maps = model.backbone(scaled)
            summed = sum(classifier(maps[-1]) for classifier in model.head.classifiers)
            scores.append(F.interpolate(summed, (41, 13), mode="bilinear", align_corners=True))
        expected = torch.stack(scores).amax(0)
        torch.testing.assert_close(model(image)["logits"], expected, **TOLERANCE)
        training = model.train()(image)
    assert [tuple(s.shape[2:]) for s in training["scales"]] == [(41, 13), (31, 10), (21, 7)]


def dilations(stage: nn.Module) -> list[int]:
    return [m.dilation[0] for m in stage.modules()
            if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "overrides", "third", "fourth"),
    [
        ("deeplabv2", [], {2}, [4, 4, 4]),
        ("pspnet", [], {2}, [4, 4, 4]),
        ("encnet", [], {1, 2}, [2, 4, 4]),
        ("deeplabv3", [], {1}, [2, 4, 8]),
        ("deeplabv3", ["architecture.backbone.output_stride=8"], {2}, [4, 8, 16]),
        ("deeplabv3_cascade", [], {1}, [2, 4, 2]),
        ("deeplabv3plus", [], {1}, [2, 4, 8]),
        ("deeplabv3_torchvision", [], {1, 2}, [2, 4, 4]),
    ],
)
def test_rates_of_the_dilated_stages(architecture, overrides, third, fourth):
    model = network(architecture, *overrides)
    assert set(dilations(model.backbone.body.layer3)) == third
    assert dilations(model.backbone.body.layer4) == fourth


@pytest.mark.parametrize(
    ("architecture", "stride", "rates"),
    [
        ("deeplabv3", 16, [6, 12, 18]),
        ("deeplabv3", 8, [12, 24, 36]),
        ("deeplabv3plus", 16, [6, 12, 18]),
        ("deeplabv3plus_xception", 8, [12, 24, 36]),
    ],
)
def test_aspp_rates_follow_the_output_stride(architecture, stride, rates):
    """DeepLabv3 section 3.3: rates (6, 12, 18) at output stride 16, doubled at 8."""
    model = network(architecture, f"architecture.backbone.output_stride={stride}")
    aspp = model.aspp if hasattr(model, "aspp") else model.head.aspp
    assert [branch[0].dilation[0] for branch in aspp.branches] == [1, *rates]
    assert aspp.branches[0][0].kernel_size == (1, 1)


def test_cascade_doubles_its_rates():
    """Section 3.2: blocks 5, 6 and 7 have rates 4, 8 and 16 times the multi-grid, at stride 16."""
    model = network("deeplabv3_cascade")
    assert [dilations(block) for block in model.blocks] == [[4, 8, 4], [8, 16, 8], [16, 32, 16]]
    second = model.backbone.body.layer4[1].conv2.weight
    assert all(torch.equal(block[0].conv2.weight, second) for block in model.blocks)


@pytest.mark.parametrize(("name", "block"), [("xception65", 1), ("xception71", 2)])
def test_xception_taps_the_last_map_at_stride_4(name, block):
    """256 channels at stride 4, before the strided convolution; last map as timm's own forward."""
    model = network("deeplabv3plus_xception", f"architecture.backbone.name={name}").backbone
    seen = {}
    model.body.blocks[block].stack.conv2.register_forward_hook(
        lambda module, inputs, output: seen.update(tap=output.clone())
    )
    image = torch.randint(0, 256, (1, 3, 97, 65), dtype=torch.uint8)
    with torch.no_grad():
        low_level, last = model(image)
        assert torch.equal(low_level, seen["tap"])
        expected = model.body.forward_features(model.normalize(image))
    assert low_level.shape == (1, 256, 25, 17)
    torch.testing.assert_close(last, expected, **TOLERANCE)


def test_deeplabv3plus_decoder_composed_by_hand():
    model = network("deeplabv3plus", *small_network("architecture=deeplabv3plus"))
    image = torch.randint(0, 256, (1, 3, 65, 97), dtype=torch.uint8)
    with torch.no_grad():
        low_level, *_, last = model.backbone(image)
        encoded = F.interpolate(
            model.aspp(last), low_level.shape[2:], mode="bilinear", align_corners=True
        )
        reduced = F.relu(model.decoder.reduce[1](model.decoder.reduce[0](low_level)))
        assert reduced.shape[1] == 48
        x = torch.cat([encoded, reduced], 1)
        for conv, norm, _ in model.decoder.convs:
            assert (conv.kernel_size, conv.out_channels) == ((3, 3), 256)
            x = F.relu(norm(F.conv2d(x, conv.weight, padding=1)))
        expected = model.classifier(x)
        torch.testing.assert_close(model(image)["logits"], expected, **TOLERANCE)


def test_crops_of_8k_plus_1_give_maps_of_k_plus_1():
    """Which is what resizing with aligned corners is made for."""
    for name, crop in (("deeplabv2", 321), ("pspnet", 473), ("deeplabv3", 513)):
        model = network(name, *small_network(f"architecture={name}"))
        with torch.no_grad():
            logits = model(torch.zeros(1, 3, crop, 33, dtype=torch.uint8))["logits"]
        assert logits.shape[2] == (crop - 1) // model.backbone.output_stride + 1
