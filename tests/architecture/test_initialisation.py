"""Untrained networks guess: no class is preferred, and layers keep the scale of what they get."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import architectures, composed, small_network
from torch import Tensor, nn

from segtrain.architecture.blocks import init_head
from segtrain.assembly import build_model
from segtrain.dataset.instances import target_from_masks, training_objects

CLASSES = 11


def with_real_width(chosen: str) -> list[str]:
    """Overrides for a network whose heads are as wide as in the paper, on a short backbone."""
    backbone = composed(chosen)["architecture"]["backbone"]
    values = [o for o in small_network(chosen) if o.startswith("architecture.backbone.")]
    if "fc_channels" in backbone:
        return [*values, f"architecture.backbone.fc_channels={backbone['fc_channels']}"]
    if backbone["_target_"].endswith("TimmBackbone"):
        cascade = [o for o in small_network(chosen) if o.startswith("architecture.multi_grid")]
        return [*values, *cascade, "architecture.backbone.name=resnet26"]
    return values


def as_if_trained(module: nn.Module, inputs: tuple, maps: list[Tensor]) -> list[Tensor]:
    """Maps of a mean square of at most one: those of a VGG-16 without weights are far larger."""
    if not isinstance(maps, list):
        return maps  # with batch norm
    return [m / m.square().mean().sqrt().clamp(min=1) for m in maps]


@pytest.mark.parametrize("width", ["small", "real"])
@pytest.mark.parametrize("name", architectures("semantic"))
def test_first_loss_is_that_of_a_guess(name, width):
    chosen = f"architecture={name}"
    overrides = small_network(chosen) if width == "small" else with_real_width(chosen)
    torch.manual_seed(0)
    model = build_model(composed(chosen, *overrides), CLASSES).train()
    model.backbone.register_forward_hook(as_if_trained)
    with torch.no_grad():
        outputs = model(torch.randint(0, 256, (2, 3, 97, 97), dtype=torch.uint8))
    scores = {
        "main": outputs["logits"],
        "auxiliary": outputs.get("aux"),
        **{f"scale {i}": scale for i, scale in enumerate(outputs.get("scales", []))},
    }
    for head, logits in scores.items():
        if logits is not None:
            target = torch.randint(0, CLASSES, (2, *logits.shape[2:]))
            loss = F.cross_entropy(logits, target).item()
            assert loss == pytest.approx(math.log(CLASSES), rel=0.2), head
    if "presence" in outputs:
        assert_undecided(outputs["presence"])


def assert_undecided(logits: Tensor) -> None:
    """Of yes and no."""
    target = torch.randint(0, 2, logits.shape).float()
    loss = F.binary_cross_entropy_with_logits(logits, target).item()
    assert loss == pytest.approx(math.log(2), rel=0.2)


@pytest.mark.parametrize("classes", [2, 80])
@pytest.mark.parametrize("name", architectures("instance"))
def test_first_losses_of_detectors_are_those_of_a_guess(name, classes):
    chosen = f"architecture={name}"
    small = [o for o in small_network(chosen) if "backbone" in o]  # heads have their real width
    torch.manual_seed(0)
    model = build_model(composed(chosen, *small, "architecture.samples=64"), classes).train()
    masks = np.zeros((3, 96, 96), np.uint8)
    masks[0, 4:24, 4:24] = masks[1, 40:90, 10:60] = masks[2, 10:50, 50:90] = 1
    objects = target_from_masks(masks, [0, 1, 0], np.zeros(3, bool), 0)
    image = torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8)
    with torch.no_grad():
        outputs = model([image], [training_objects(objects, (96, 96), flip=False)])
    assert_undecided(outputs["objectness"])
    assert_undecided(outputs["mask_logits"])
    if "class_logits" in outputs:
        logits = outputs["class_logits"]
        loss = F.cross_entropy(logits, torch.randint(0, 1 + classes, (len(logits),))).item()
        assert loss == pytest.approx(math.log(1 + classes), rel=0.2)


@pytest.mark.parametrize("groups", [1, 4, 64])
def test_variance_passes_through_convolutions_of_any_groups(groups):
    """Of what a ReLU cuts in half, as between the layers of a head."""
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 64, 3, groups=groups)
    init_head(layer)
    with torch.no_grad():
        out = layer(torch.randn(4, 64, 34, 34).relu())
    assert out.square().mean().item() == pytest.approx(1.0, rel=0.15)
