"""torchvision's segmentation models: same names after renaming, same logits, same counts."""

import pytest
import torch
from conftest import composed
from torchvision.models import segmentation

from segtrain.architecture.weights import load_weights, read_state_dict
from segtrain.build import build_model, load_initial_weights
from segtrain.errors import UserError

PUBLISHED_PARAMETERS = {
    "fcn_resnet50": 35_322_218,
    "fcn_resnet101": 54_314_346,
    "deeplabv3_resnet50": 42_004_074,
    "deeplabv3_resnet101": 60_996_202,
}


def ours(name: str) -> torch.nn.Module:
    head, backbone = name.split("_")
    architecture = {"fcn": "fcn", "deeplabv3": "deeplabv3_torchvision"}[head]
    config = composed(
        f"architecture={architecture}",
        f"architecture.backbone.name={backbone}",
        "architecture.backbone.weights=none",
        "trainer.channels_last=false",  # other kernels add in another order
    )
    return build_model(config, 21)


@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_logits_equal_torchvisions(name, tmp_path):
    torch.manual_seed(0)
    peer = getattr(segmentation, name)(weights=None, weights_backbone=None, aux_loss=True)
    norms = [module for module in peer.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    peer.train()(torch.randn(2, 3, 65, 81))  # statistics of its own: random nets explode without
    for norm in norms:
        norm.running_var.clamp_(min=0.1)  # two pooled values hardly vary
    torch.save(peer.state_dict(), tmp_path / "weights.pth")
    model = ours(name)
    load_initial_weights(model, str(tmp_path / "weights.pth"))
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED_PARAMETERS[name]
    image = torch.randint(0, 256, (1, 3, 65, 81), dtype=torch.uint8)
    # The rounding of the normalisation itself, which test_backbone.py checks, would be amplified.
    normalised = (image.float() - model.backbone.mean) / model.backbone.std
    with torch.no_grad():
        expected = peer.eval()(normalised)
        logits = model.eval()(image)["logits"]
        aux = model.auxiliary(model.backbone(image)[2])
    for got, key in ((logits, "out"), (aux, "aux")):
        resized = torch.nn.functional.interpolate(got, (65, 81), mode="bilinear")
        assert (resized - expected[key]).abs().max() <= 1e-4


def test_every_misfit_is_reported(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    state = model.state_dict()
    state["0.weight"] = torch.zeros(4, 2)
    state["extra"] = torch.zeros(1)
    del state["1.bias"]
    with pytest.raises(UserError) as error:
        load_weights(model, state, "file.pth")
    for part in ("0.weight (file (4, 2), model (3, 2))", "1.bias", "extra", "file.pth"):
        assert part in str(error.value)


def test_pickled_objects_are_refused(tmp_path):
    torch.save({"state_dict": torch.nn.Linear(1, 1)}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="not a readable weights file"):
        read_state_dict(tmp_path / "evil.pth")


def test_safetensors(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2)}, tmp_path / "w.safetensors")
    assert torch.equal(read_state_dict(tmp_path / "w.safetensors")["w"], torch.ones(2))


def test_unknown_torchvision_name():
    with pytest.raises(UserError, match="torchvision has no 'fcn_resnet5'; it has: .*fcn_resnet50"):
        load_initial_weights(torch.nn.Identity(), "torchvision/fcn_resnet5")


def test_torchvision_without_network(monkeypatch):
    def offline(self, *arguments, **settings):
        raise OSError("no route to host")

    monkeypatch.setattr(segmentation.FCN_ResNet50_Weights, "get_state_dict", offline)
    with pytest.raises(UserError, match=r"could not be fetched.*https://.*weights=<file>"):
        load_initial_weights(torch.nn.Identity(), "torchvision/fcn_resnet50")
