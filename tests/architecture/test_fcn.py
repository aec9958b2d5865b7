"""FCN against convolutions composed by hand, and the geometry of the authors' nets."""

import pytest
import torch
import torch.nn.functional as F
from conftest import composed

from segtrain.architecture.semantic.fcn import BilinearUpsampling, bilinear_kernel
from segtrain.assembly import build_model


def fcn(name: str, *overrides: str) -> torch.nn.Module:
    config = composed(
        f"architecture={name}",
        "architecture.backbone.weights=none",
        "architecture.backbone.channels=[4,4,6,6,8]",
        "architecture.backbone.fc_channels=10",
        "trainer.channels_last=false",
        *overrides,
    )
    torch.manual_seed(0)
    model = build_model(config, 3).eval()
    for classifier in model.classifiers:
        torch.nn.init.normal_(classifier.weight)
        torch.nn.init.normal_(classifier.bias)
    return model


def slow_deconvolution(x: torch.Tensor, stride: int) -> torch.Tensor:
    """Transposed convolution of one plane with the bilinear kernel, pixel by pixel."""
    size = 2 * stride
    out = torch.zeros(stride * (x.shape[0] + 1), stride * (x.shape[1] + 1))
    centre = stride - 0.5
    for row in range(x.shape[0]):
        for column in range(x.shape[1]):
            for i in range(size):
                for j in range(size):
                    weight = (1 - abs(i - centre) / stride) * (1 - abs(j - centre) / stride)
                    out[row * stride + i, column * stride + j] += weight * x[row, column]
    return out


@pytest.mark.parametrize("stride", [2, 8])
def test_bilinear_upsampling_equals_the_slow_formula(stride):
    x = torch.randn(2, 3, 3, 4)
    got = BilinearUpsampling(stride, 3)(x)
    for image in range(2):
        for plane in range(3):
            expected = slow_deconvolution(x[image, plane], stride)
            torch.testing.assert_close(got[image, plane], expected, atol=1e-5, rtol=1e-5)


def test_bilinear_kernel_of_odd_size():
    """f = (k + 1) // 2, centre f - 1: a triangle with its peak in the middle."""
    assert bilinear_kernel(3)[1].tolist() == [0.5, 1.0, 0.5]
    assert bilinear_kernel(4)[1].tolist() == [0.1875, 0.5625, 0.5625, 0.1875]


@pytest.mark.parametrize(
    ("name", "offsets"),
    [("fcn32s", [19]), ("fcn16s", [5, 27]), ("fcn8s", [5, 9, 31])],
)
@pytest.mark.parametrize("size", [(33, 70), (64, 97)])
def test_crop_offsets_of_the_release(name, offsets, size):
    """Deconvolutions and crops written out with the offsets of the authors' prototxt files."""
    model = fcn(name)
    image = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
    with torch.no_grad():
        pool3, pool4, fc7 = model.backbone(image)
        scores = model.classifiers[0](fc7)
        last = {1: 32, 2: 16, 3: 8}[len(offsets)]
        for index, skip in enumerate((pool4, pool3)[: len(offsets) - 1]):
            kernel = bilinear_kernel(4).expand(3, 1, 4, 4)
            scores = F.conv_transpose2d(scores, kernel, stride=2, groups=3)
            skip = model.classifiers[index + 1](skip)
            height, width = scores.shape[2:]
            start = offsets[index]
            scores = scores + skip[:, :, start : start + height, start : start + width]
        kernel = bilinear_kernel(2 * last).expand(3, 1, 2 * last, 2 * last)
        scores = F.conv_transpose2d(scores, kernel, stride=last, groups=3)
        start = offsets[-1]
        expected = scores[:, :, start : start + size[0], start : start + size[1]]
        got = model(image)["logits"]
    assert got.shape == (1, 3, *size)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_skips_start_without_effect_and_scale():
    """A new skip's scores are zero; trained at once, pool4 and pool3 come in scaled."""
    model = build_model(
        composed("architecture=fcn8s", "architecture.backbone.weights=none",
                 "architecture.backbone.channels=[4,4,6,6,8]",
                 "architecture.backbone.fc_channels=10"), 3)  # fmt: skip
    assert all(not layer.weight.any() for layer in model.classifiers)
    at_once, plain = fcn("fcn8s_atonce"), fcn("fcn8s")
    plain.load_state_dict(at_once.state_dict())
    with torch.no_grad():
        plain.classifiers[1].weight *= 0.01
        plain.classifiers[2].weight *= 0.0001
        image = torch.randint(0, 256, (1, 3, 40, 40), dtype=torch.uint8)
        torch.testing.assert_close(
            at_once(image)["logits"], plain(image)["logits"], atol=1e-4, rtol=1e-4
        )


def test_learned_upsampling_starts_as_the_fixed_one():
    fixed, learned = fcn("fcn8s"), fcn("fcn8s", "architecture.learned_upsampling=true")
    learned.load_state_dict(fixed.state_dict(), strict=False)
    image = torch.randint(0, 256, (1, 3, 40, 51), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(
            learned(image)["logits"], fixed(image)["logits"], atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("size", [(64, 64), (95, 130)])
def test_any_backbone_is_aligned(size):
    """Unpadded maps of a timm model: constant scores stay constant away from the border."""
    config = composed("architecture=fcn8s", "architecture/backbone=timm",
                      "architecture.backbone.name=test_resnet",
                      "architecture.backbone.weights=none")  # fmt: skip
    model = build_model(config, 2).eval()
    for layer in model.classifiers:
        torch.nn.init.ones_(layer.bias)
    with torch.no_grad():
        logits = model(torch.zeros(1, 3, *size, dtype=torch.uint8))["logits"]
    assert logits.shape == (1, 2, *size)
    inner = logits[:, :, 28:-28, 28:-28]  # half a cell of each of the three maps
    torch.testing.assert_close(inner, torch.full_like(inner, 3.0))
