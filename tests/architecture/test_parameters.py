"""Parameter counts of the papers and of their layer lists, to the last one."""

import pytest
import torch
from conftest import composed

from segtrain.assembly import build_model

R50_DEEP = "architecture.backbone.name=resnet50s"
NEW_BASELINE = ["architecture.norm=batch", "architecture.box_convs=4", "architecture.rpn.convs=2"]
NO_AUX = "architecture.auxiliary=false"

COUNTS = [
    ("fcn32s", 21, [], 134_346_581),
    ("fcn8s", 21, [], 134_362_751),
    ("fcn8s", 21, ["architecture.learned_upsampling=true"], 134_362_751 + 127_008),
    ("fcn8s", 60, [], 134_552_564),
    # The reduced VGG-16 with its classifier, and the global branch: two scales of 1024 channels and
    # a classifier without bias.
    ("parsenet", 21, [], 20_505_429 + 2 * 1024 + 1024 * 21),
    ("deconvnet", 21, [], 251_805_653),
    ("pspnet", 21, [], 68_073_706),
    ("pspnet", 21, [NO_AUX], 65_708_501),
    ("pspnet", 21, [R50_DEEP], 49_081_578),
    ("pspnet", 21, [R50_DEEP, NO_AUX], 46_716_373),
    ("pspnet", 19, [], 68_072_166),
    ("pspnet", 19, [NO_AUX], 65_707_475),
    ("deeplabv2", 21, [], 44_048_532),
    ("deeplabv2", 60, [], 46_924_080),
    ("deeplabv2", 19, [], 43_901_068),
    ("deeplabv2_vgg16", 21, ["architecture.backbone.fc6_rates=[12]"], 20_505_429),
    ("deeplabv3", 21, [], 58_040_661),
    ("deeplabv3plus", 21, [], 59_344_309),
    ("deeplabv3plus_xception", 21, [], 41_055_413),
    ("encnet", 59, [], 62_907_345),
    ("encnet", 59, [R50_DEEP], 43_915_217),
    ("linear", 21, [], 22_056_192 + 2 * 384 + 385 * 21),
    # Detectron2's own count of its new baseline, whose background has neither boxes nor a mask.
    ("mask_rcnn", 80, NEW_BASELINE, 46_301_232 + 4 * 1025 + 257),
]


def parameters(architecture: str, classes: int, *overrides: str) -> dict[str, int]:
    config = composed(
        f"architecture={architecture}", "architecture.backbone.weights=none", *overrides
    )
    with torch.device("meta"):
        model = build_model(config, classes)
    return {name: p.numel() for name, p in model.named_parameters()}


@pytest.mark.parametrize(("architecture", "classes", "overrides", "expected"), COUNTS)
def test_count(architecture, classes, overrides, expected):
    assert sum(parameters(architecture, classes, *overrides).values()) == expected


@pytest.mark.parametrize(
    ("architecture", "overrides", "expected"),
    [
        ("pspnet", [R50_DEEP], 23_631_808),
        ("pspnet", [], 42_623_936),
        ("deeplabv2", [], 42_500_160),
        ("deeplabv3_torchvision", [], 23_508_032),
        ("deeplabv3plus_xception", [], 37_867_312),
    ],
)
def test_trunk(architecture, overrides, expected):
    counted = parameters(architecture, 21, *overrides)
    trunk = sum(n for name, n in counted.items() if name.startswith("backbone."))
    assert trunk == expected
