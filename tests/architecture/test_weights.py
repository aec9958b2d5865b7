"""torchvision's segmentation models: same names after renaming, same logits, same counts."""

import pytest
import timm
import torch
from conftest import composed, small_network
from torchvision.models import segmentation

from segtrain.architecture.weights import load_weights, read_state_dict
from segtrain.assembly import build_model
from segtrain.errors import UserError
from segtrain.prepare import fetch
from segtrain.zoo.initial import load_initial_weights

PUBLISHED_PARAMETERS = {
    "fcn_resnet50": 35_322_218,
    "fcn_resnet101": 54_314_346,
    "deeplabv3_resnet50": 42_004_074,
    "deeplabv3_resnet101": 60_996_202,
}


def ours(name: str) -> torch.nn.Module:
    head, backbone = name.split("_")
    architecture = {"fcn": "fcn_torchvision", "deeplabv3": "deeplabv3_torchvision"}[head]
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
    normalised = model.backbone.normalize(image)
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


def test_torchvision_without_network(monkeypatch, tmp_path):
    def offline(*arguments, **settings):
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(fetch, "WAITS", ())
    monkeypatch.setattr("urllib.request.urlopen", offline)
    message = r"https://.*downloaded: no route to host.*weights=<file> \(fcn_.*sha256 1167"
    with pytest.raises(UserError, match=message):
        load_initial_weights(torch.nn.Identity(), "torchvision/fcn_resnet50")


def test_the_log_has_more_of_the_misfits_but_no_endless_list(caplog):
    model = torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(10)))
    with caplog.at_level("INFO", "segtrain"), pytest.raises(UserError, match="14 more"):
        load_weights(model, {"other": torch.zeros(1)}, "file.pth")
    assert all(f"{i}.{part}" in caplog.text for i in range(10) for part in ("weight", "bias"))
    caplog.clear()
    with caplog.at_level("INFO", "segtrain"), pytest.raises(UserError):
        load_weights(model, {f"{i}.other": torch.zeros(1) for i in range(1000)}, "file.pth")
    assert "1000 not in the model: 0.other, " in caplog.text
    assert "... 960 more" in caplog.text


@pytest.mark.parametrize("prefixes", [
    ("module.",), ("_orig_mod.",), ("model.",), ("module.", "_orig_mod."),
    ("_orig_mod.", "module."), ("model.", "_orig_mod."), ("state_dict.",), ("net.",),
    ("module.", "model.", "module."),
])  # fmt: skip
@pytest.mark.parametrize(
    "entry", [None, "state_dict", "model", "model_state_dict", ("model", "net")]
)
def test_what_wrappers_put_before_the_names_is_taken_off_and_said_once(
    prefixes, entry, tmp_path, caplog
):
    state = {"body.conv.weight": torch.ones(2), "body.bn.bias": torch.zeros(2)}
    content = {"".join(prefixes) + key: value for key, value in state.items()}
    for key in (entry,) if isinstance(entry, str) else reversed(entry or ()):
        content = {key: content, "epoch": 3}
    torch.save(content, tmp_path / "w.pth")
    with caplog.at_level("INFO", "segtrain"):
        read = read_state_dict(tmp_path / "w.pth")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], value) for key, value in state.items())
    said = [record for record in caplog.records if "taken off" in record.message]
    assert len(said) == (prefixes != ("model.",))  # as in checkpoints of our own


def test_a_part_that_was_compiled_alone_has_its_own_names(tmp_path):
    network = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
    network[0] = torch.compile(network[0])
    assert "0._orig_mod.weight" in network.state_dict()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    assert read_state_dict(tmp_path / "w.pth").keys() == {
        "0.weight", "0.bias", "1.weight", "1.bias"
    }  # fmt: skip


def test_two_networks_in_one_file_are_refused(tmp_path):
    torch.save({"a.weight": torch.ones(1), "module.a.weight": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="two of its tensors would have one name"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("content", "said"),
    [([torch.ones(1)], "but a list"), ({}, "its entries are none"), (torch.ones(1), "but a Tensor"),
     ({"epoch": 3, "optimizer": {}}, "its entries are epoch, optimizer")],
)  # fmt: skip
def test_a_file_without_a_state_dict_says_what_it_holds(content, said, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match=f"holds no state dict of tensors.*{said}"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["resnet18", "resnet26", "resnet34", "resnet50", "resnet101"])
def test_weights_of_another_depth_say_which_one_they_are(name):
    state = timm.create_model(name).state_dict()
    other = "resnet50" if name != "resnet50" else "resnet101"
    title = {key: f"ResNet-{key.removeprefix('resnet')}" for key in (name, other)}
    with torch.device("meta"):
        model = timm.create_model(other)
    with pytest.raises(
        UserError, match=f"file is of a {title[name]}, the model is a {title[other]}"
    ):
        load_weights(model, state, "file.pth")
    with torch.device("meta"):
        model = timm.create_model("vgg11")
    with pytest.raises(UserError, match=f"file is of a {title[name]}, the model is no ResNet"):
        load_weights(model, state, "file.pth")


def test_other_class_count_replaces_the_classifier_only_and_says_so(tmp_path, caplog):
    """Weights of 21 classes with an auxiliary head, into a model of 5 classes without one."""
    chosen = "architecture=deeplabv3_torchvision"
    base = [chosen, *small_network(chosen)]
    torch.manual_seed(0)
    donor = build_model(composed(*base), 21)
    torch.save(donor.state_dict(), tmp_path / "w.pth")
    model = build_model(composed(*base, "architecture.auxiliary=false"), 5)
    before = model.state_dict()["head.classifier.weight"].clone()
    with caplog.at_level("INFO", "segtrain"):
        load_initial_weights(model, str(tmp_path / "w.pth"))
    state, given = model.state_dict(), donor.state_dict()
    assert torch.equal(state["head.classifier.weight"], before)
    others = [key for key in state if not key.startswith("head.classifier")]
    assert all(torch.equal(state[key], given[key]) for key in others)
    assert "trained anew, not in the file for these classes: head.classifier.bias" in caplog.text
    assert "left out, not in this model: auxiliary.classifier.bias" in caplog.text


def test_fcn_stages_hand_their_weights_on(tmp_path, caplog):
    """FCN-16s takes all of FCN-32s; the scores of pool4 are new."""
    nets = {}
    for name in ("fcn32s", "fcn16s"):
        chosen = f"architecture={name}"
        torch.manual_seed(len(nets))
        nets[name] = build_model(composed(chosen, *small_network(chosen)), 4)
    torch.nn.init.normal_(nets["fcn32s"].classifiers[0].weight)
    torch.save(nets["fcn32s"].state_dict(), tmp_path / "32s.pth")
    with caplog.at_level("INFO", "segtrain"):
        load_initial_weights(nets["fcn16s"], str(tmp_path / "32s.pth"))
    got = nets["fcn16s"].state_dict()
    for key, value in nets["fcn32s"].state_dict().items():
        assert torch.equal(got[key], value)
    assert "classifiers.1.bias, classifiers.1.weight" in caplog.text


def test_authors_pspnet_checkpoint_loads(tmp_path):
    """Names and shapes of github.com/hszhao/semseg's PSPNet-50, saved by nn.DataParallel."""
    model = build_model(composed("architecture=pspnet", "architecture.backbone.name=resnet50s",
                                 "architecture.backbone.weights=none"), 21)  # fmt: skip
    theirs = {}
    stem = {"conv1.0": "0", "conv1.1": "1", "conv1.3": "3", "conv1.4": "4", "conv1.6": "6",
            "bn1": "7"}  # fmt: skip
    for key, value in model.state_dict().items():
        name = key.removeprefix("backbone.body.")
        for ours, number in stem.items():
            if key.startswith("backbone.") and name.startswith(ours + "."):
                name = f"layer0.{number}{name.removeprefix(ours)}"
        for level in range(4):
            for part in (0, 1):
                name = name.replace(f"head.pyramid.reductions.{level}.{part}.",
                                    f"ppm.features.{level}.{part + 1}.")  # fmt: skip
        for ours, other in (("head.conv", "cls"), ("auxiliary.conv", "aux")):
            name = name.replace(ours, other)
        name = name.replace("head.classifier", "cls.4").replace("auxiliary.classifier", "aux.4")
        theirs[f"module.{name}"] = torch.randn(value.shape).to(value.dtype)
    assert {"module.layer0.0.weight", "module.ppm.features.3.2.running_var", "module.aux.4.bias",
            "module.layer4.2.conv3.weight"} <= theirs.keys()  # fmt: skip
    torch.save({"epoch": 50, "state_dict": theirs}, tmp_path / "train_epoch_50.pth")
    load_initial_weights(model, str(tmp_path / "train_epoch_50.pth"))
    state = model.state_dict()
    assert torch.equal(state["head.pyramid.reductions.3.1.running_var"],
                       theirs["module.ppm.features.3.2.running_var"])  # fmt: skip
    assert torch.equal(state["backbone.body.bn1.weight"], theirs["module.layer0.7.weight"])
    assert torch.equal(state["auxiliary.classifier.bias"], theirs["module.aux.4.bias"])


def small_deeplabv2() -> torch.nn.Module:
    chosen = "architecture=deeplabv2"
    return build_model(composed(chosen, *small_network(chosen)), 3)


def test_parts_start_anew_where_the_recipe_says(tmp_path, caplog):
    """DeepLabv2's ASPP after COCO, though the classes are the same."""
    file, own = small_deeplabv2(), small_deeplabv2()
    torch.save(file.state_dict(), tmp_path / "w.pth")
    before = {key: value.clone() for key, value in own.state_dict().items()}
    with caplog.at_level("INFO"):
        load_initial_weights(own, str(tmp_path / "w.pth"), ["head"])
    for key, value in own.state_dict().items():
        origin = before if key.startswith("head.") else file.state_dict()
        assert torch.equal(value, origin[key]), key
    assert "trained anew, as the recipe says: head" in caplog.text
    with pytest.raises(UserError, match="no part 'haed'; it has backbone, head"):
        load_initial_weights(own, str(tmp_path / "w.pth"), ["haed"])
