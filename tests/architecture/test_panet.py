"""PANet's pieces against the paper's formulas, written out one region at a time."""

import pytest
import torch
from conftest import composed
from torch import nn
from torchvision.ops import roi_align

from segtrain.architecture.instance.fpn import FeaturePyramid
from segtrain.architecture.instance.panet import (
    AdaptiveBoxHead,
    FusedMaskHead,
    PathAggregation,
)
from segtrain.architecture.instance.roi import pool
from segtrain.assembly import make
from segtrain.errors import UserError

STRIDES = [4, 8, 16, 32]


@pytest.fixture
def maps():
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(2, 32, 64 // s * 2, 64 // s * 3, generator=draw) for s in STRIDES]


@pytest.fixture
def boxes():
    return [
        torch.tensor([[3.0, 4, 30, 50], [0, 0, 192, 128]]),
        torch.tensor([[100.0, 10, 130, 20]]),
    ]


def regions(maps, boxes, size):
    """The pooled levels of each region: a list of four (C, size, size) for each."""
    for image, own in enumerate(boxes):
        for box in own:
            yield [
                roi_align(m[image : image + 1], [box[None]], size, 1 / stride, 2)[0]
                for m, stride in zip(maps, STRIDES, strict=True)
            ]


def randomised(module):
    """With norms that are no identity."""
    torch.manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.GroupNorm | nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5), nn.init.normal_(part.bias)
    return module.eval()


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_bottom_up_path(norm):
    torch.manual_seed(0)
    pyramid = FeaturePyramid([8, 8, 8, 8], channels=32, norm=norm)
    path = randomised(PathAggregation(pyramid, norm))
    inputs = [torch.randn(1, 8, 64 // s, 96 // s) for s in STRIDES]
    p = pyramid(inputs)
    n = [p[0]]
    for level in range(3):
        down = torch.clamp(path.downs[level](n[-1]), min=0)
        n.append(torch.clamp(path.outputs[level](down + p[level + 1]), min=0))
    for got, expected in zip(path(inputs), n, strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("convs", [0, 4])
def test_adaptive_box_head(maps, boxes, convs):
    head = randomised(AdaptiveBoxHead(3, 32, STRIDES, 7, 16, convs, "group", adaptive=True))
    expected_scores, expected_offsets = [], []
    for levels in regions(maps, boxes, 7):
        seen = [layer(x[None]) for layer, x in zip(head.first, levels, strict=True)]
        x = seen[0]
        for other in seen[1:]:
            x = torch.where(other > x, other, x)
        x = x.clamp(min=0)
        for layer in head.convs:
            x = layer(x).clamp(min=0)
        x = head.fc(x.flatten(1)).clamp(min=0)
        expected_scores.append(head.classifier["scores"](x)[0])
        expected_offsets.append(head.classifier["boxes"](x)[0].view(4, 4))
    scores, offsets = head(maps, boxes)
    torch.testing.assert_close(scores, torch.stack(expected_scores), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(offsets, torch.stack(expected_offsets), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fusion", [False, True])
def test_fused_mask_head(maps, boxes, fusion):
    head = randomised(FusedMaskHead(3, 32, STRIDES, 14, "group", adaptive=True, fusion=fusion))
    labels = torch.tensor([1, 3, 2])
    expected = []
    for levels, label in zip(regions(maps, boxes, 14), labels, strict=True):
        x = torch.stack([f(x[None]) for f, x in zip(head.first, levels, strict=True)]).max(0).values
        x = x.clamp(min=0)
        for layer in head.convs[:2]:
            x = layer(x).clamp(min=0)
        masks = head.classifier(head.deconv(head.convs[2](x).clamp(min=0)).clamp(min=0))[0, label]
        if fusion:
            conv4, _, conv5, _, _, fc = head.branch
            flat = conv5(conv4(x).clamp(min=0)).clamp(min=0).flatten()
            masks = masks + (fc.weight @ flat + fc.bias).view(28, 28)
        expected.append(masks)
    got = head(maps, boxes, labels)
    torch.testing.assert_close(got, torch.stack(expected), atol=1e-5, rtol=1e-4)


def test_without_adaptive_pooling_a_region_sees_its_level(maps, boxes):
    head = AdaptiveBoxHead(3, 32, STRIDES, 7, 16, 0, "none", adaptive=False).eval()
    x = head.fc(head.first[0](pool(maps, STRIDES, boxes, 7)).relu()).relu()
    torch.testing.assert_close(head(maps, boxes)[0], head.classifier["scores"](x))


def test_the_gradient_of_the_maximum_reaches_the_largest_level_alone(maps, boxes):
    head = AdaptiveBoxHead(3, 32, STRIDES, 7, 16, 0, "none", adaptive=True)
    with torch.no_grad():
        for layer in head.first:
            layer[1].weight.zero_()
            layer[1].bias.zero_()
        head.first[2][1].bias.fill_(1.0)
    head(maps, boxes)[0].sum().backward()
    assert float(head.first[2][1].weight.grad.abs().sum()) > 0
    assert all(float(head.first[i][1].weight.grad.abs().sum()) == 0 for i in (0, 1, 3))


def test_branch_narrows_to_half_and_is_one_mask_for_all_classes():
    head = FusedMaskHead(80, 256, STRIDES, 14, "none", adaptive=True, fusion=True)
    assert head.branch[2].out_channels == 128
    assert head.branch[-1].out_features == 28 * 28


def test_every_part_can_be_left_out():
    """What is left is Mask R-CNN, to the last parameter."""
    plain = [
        "architecture.bottom_up=false", "architecture.adaptive_pooling=false",
        "architecture.fusion=false", "architecture.box_convs=0", "architecture.norm=none",
    ]  # fmt: skip
    sizes = []
    for overrides in (["architecture=mask_rcnn"], ["architecture=panet", *plain]):
        config = composed(*overrides, "architecture.backbone.weights=none",
                          "architecture.backbone.name=test_resnet")  # fmt: skip
        model = make(config["architecture"], num_classes=5)
        sizes.append(sorted(tuple(p.shape) for p in model.parameters()))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("architecture", ["mask_rcnn", "panet", "fpn"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_a_pyramid_needs_four_strides(architecture, output_stride):
    config = composed(f"architecture={architecture}", "architecture.backbone.weights=none",
                      "architecture.backbone.name=test_resnet",
                      f"architecture.backbone.output_stride={output_stride}")  # fmt: skip
    with pytest.raises(UserError, match="output_stride=32"):
        make(config["architecture"], num_classes=5)


@pytest.mark.parametrize(
    ("architecture", "key"), [("mask_rcnn", "rpn.anchor_sizes"), ("fpn", "scales")]
)
def test_there_is_a_size_for_every_level(architecture, key):
    config = composed(f"architecture={architecture}", "architecture.backbone.weights=none",
                      "architecture.backbone.name=test_resnet",
                      f"architecture.{key}=[32,64]")  # fmt: skip
    with pytest.raises(UserError, match=key):
        make(config["architecture"], num_classes=5)
