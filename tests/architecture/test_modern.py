"""Networks after the papers of the transformers' years: the logits of independent code on random
weights, and the published numbers of parameters."""

import re

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import transformers
from conftest import composed
from mask_classifiers import SWIN, renamed
from randomised import randomise
from torch import nn

from segtrain.architecture.hrnet import HRNet
from segtrain.architecture.three_branches import ThreeBranches
from segtrain.assembly import build_model
from segtrain.errors import UserError

# Of SegFormer's B0 to B5 with 150 classes, and their head's channels.
SEGFORMER = [(3_752_694, 256), (13_715_798, 256), (27_461_974, 768), (47_337_814, 768),
             (64_108_374, 768), (84_708_694, 768)]  # fmt: skip
DEPTHS = [[2, 2, 2, 2], [2, 2, 2, 2], [3, 4, 6, 3], [3, 4, 18, 3], [3, 8, 27, 3], [3, 6, 40, 3]]
STAGES = ["stage1", "stage2", "stage3", "stage4"]


def built(*overrides: str, classes: int = 150) -> nn.Module:
    return build_model(composed(*overrides, "architecture.backbone.weights=none"), classes).eval()


def assert_same_logits(ours: nn.Module, reference, limit: float, *sizes: tuple[int, int]) -> None:
    """On images of these sizes, relative to the logits' deviation.

    `reference` sees the normalised image.
    """
    for size in sizes:
        image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1)) * 255
        with torch.no_grad():
            expected = reference(ours.backbone.normalize(image))
            logits = ours(image)["logits"]
        assert logits.shape == expected.shape
        assert (logits - expected).abs().max() <= limit * expected.std()
        assert torch.equal(logits.argmax(1), expected.argmax(1))


def in_order(ours: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors under our names, where both sides list the same ones in the same order."""
    return dict(zip(ours.state_dict(), state.values(), strict=True))


def with_joined(state: dict[str, torch.Tensor], parts: list[str], whole: str) -> dict:
    """Projections of queries, keys, values as one tensor each, which stands where the first did."""
    joined = {}
    for name, tensor in state.items():
        if f".{parts[0]}." in name:
            tensors = [state[name.replace(parts[0], part)] for part in parts]
            joined[name.replace(parts[0], whole)] = torch.cat(tensors)
        elif not any(f".{part}." in name for part in parts):
            joined[name] = tensor
    return joined


def segformer(size: int) -> transformers.SegformerForSemanticSegmentation:
    """Of `transformers`, with the epsilon that the authors' code has behind blocks and stages."""
    hidden = [32, 64, 160, 256] if size == 0 else [64, 128, 320, 512]
    model = transformers.SegformerForSemanticSegmentation(
        transformers.SegformerConfig(
            num_labels=150,
            depths=DEPTHS[size],
            hidden_sizes=hidden,
            decoder_hidden_size=SEGFORMER[size][1],
        )
    )
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm) and not re.search("patch|reduction", name):
            module.eps = 1e-6
    return randomise(model)


NAMES = [
    (r"^segformer\.stages\.", "backbone.body.stages_"),
    (r"stages_0\.patch_embeddings", "patch_embed"),
    (r"patch_embeddings", "downsample"),
    (r"sequence_reduction\.sequence_reduction", "sr"),
    (r"sequence_reduction\.layer_norm", "norm"),
    (r"layer_norm\b", "norm"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"attention\.", "attn."),
    (r"q_proj", "q"),
    (r"o_proj", "proj"),
    (r"dwconv\.dwconv", "dwconv"),
    (r"^decode_head\.", "head."),
    (r"linear_projections\.(\d)\.proj", r"projections.\1"),
    (r"linear_fuse", "fusion.0"),
    (r"batch_norm", "fusion.1"),
]


@pytest.mark.parametrize(
    "size", [0, 2, pytest.param(5, marks=pytest.mark.slow)], ids=lambda size: f"B{size}"
)
def test_segformer_has_the_logits_of_transformers(size):
    reference = segformer(size)
    channels = SEGFORMER[size][1]
    ours = built("architecture=segformer", f"architecture.backbone.name=mit_b{size}",
                 f"architecture.channels={channels}")  # fmt: skip
    state = renamed(with_joined(reference.state_dict(), ["k_proj", "v_proj"], "kv"), NAMES)
    for index in range(4):  # their projections are linear layers
        state[f"head.projections.{index}.weight"] = state[f"head.projections.{index}.weight"][
            :, :, None, None
        ]
    fusion = state["head.fusion.0.weight"]  # theirs joins the last map first
    state["head.fusion.0.weight"] = torch.cat(fusion.split(channels, 1)[::-1], 1)
    ours.load_state_dict(state)
    assert_same_logits(ours, lambda x: reference(x).logits, 1e-5, (64, 96), (75, 101), (33, 40))


@pytest.mark.parametrize("size", range(6))
def test_parameters_of_segformer(size):
    expected, channels = SEGFORMER[size]
    with torch.device("meta"):
        ours = built("architecture=segformer", f"architecture.backbone.name=mit_b{size}",
                     f"architecture.channels={channels}")  # fmt: skip
    assert sum(p.numel() for p in ours.parameters()) == expected


def upernet(backbone: transformers.PretrainedConfig) -> nn.Module:
    config = transformers.UperNetConfig(backbone_config=backbone, num_labels=150, hidden_size=512)
    return randomise(transformers.UperNetForSemanticSegmentation(config))


HEAD = [
    (r"^decode_head\.", "head."),
    (r"^auxiliary_head\.convs\.0\.conv", "auxiliary.conv.0"),
    (r"^auxiliary_head\.convs\.0\.batch_norm", "auxiliary.conv.1"),
    (r"^auxiliary_head\.", "auxiliary."),
    (r"psp_modules\.(\d)\.1", r"pyramid.reductions.\1"),
    (r"fpn_bottleneck", "fusion"),
    (r"lateral_convs", "laterals"),
    (r"fpn_convs", "smooth"),
    (r"\.conv\.weight", ".0.weight"),
    (r"\.batch_norm\.", ".1."),
]


def load_upernet(ours: nn.Module, reference: nn.Module) -> None:
    body = {k: v for k, v in reference.backbone.state_dict().items() if k[:14] != "swin.layernorm"}
    if "swin.embeddings.norm.weight" in body:
        body = renamed(with_joined(body, ["q_proj", "k_proj", "v_proj"], "qkv"), SWIN)
    else:
        body = in_order(ours.backbone, body)
    rest = {k: v for k, v in reference.state_dict().items() if not k.startswith("backbone.")}
    body = {f"backbone.{name}": tensor for name, tensor in body.items()}
    ours.load_state_dict(body | renamed(rest, HEAD))


def logits_of(reference: nn.Module):
    """Before they are resized to the image."""
    return lambda x: reference.decode_head(reference.backbone(x).feature_maps)


def test_upernet_on_convnext_has_the_logits_of_transformers():
    reference = upernet(
        transformers.ConvNextConfig(
            hidden_sizes=[96, 192, 384, 768], depths=[3, 3, 9, 3], out_features=STAGES
        )
    )
    ours = built("architecture=upernet")
    load_upernet(ours, reference)
    assert sum(p.numel() for p in ours.parameters()) == 60_242_636
    assert_same_logits(ours, logits_of(reference), 1e-4, (64, 96), (101, 75))


def test_upernet_on_swin_has_the_logits_of_transformers():
    reference = upernet(transformers.SwinConfig(out_features=STAGES))
    ours = built("architecture=upernet", "architecture/backbone=swin_tiny")
    load_upernet(ours, reference)
    # Theirs counts a norm more, of 768 channels, which nothing uses.
    assert sum(p.numel() for p in ours.parameters()) == 59_943_398 - 2 * 768
    assert_same_logits(ours, logits_of(reference), 1e-4, (260, 301))


def test_auxiliary_head_of_upernet():
    reference = upernet(transformers.SwinConfig(out_features=STAGES))
    ours = built("architecture=upernet", "architecture/backbone=swin_tiny")
    load_upernet(ours, reference)
    image = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        maps = ours.backbone(image)
        assert torch.allclose(
            ours.auxiliary(maps[-2]), reference.auxiliary_head(maps), rtol=0, atol=1e-5
        )
        ours.train()
        assert ours(image)["aux"].shape == (1, 150, 4, 4)


def nested(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """U-Net++'s tensors in our order: their node d_l is ours l - d of level l."""
    names = {name: re.search(r"x_(\d)_(\d)", name) for name in state}
    found = {name: tuple(map(int, match.groups())) for name, match in names.items() if match}
    first = min(list(state).index(name) for name in found)
    order = sorted(found, key=lambda name: (found[name][1], -found[name][0]))
    others = [name for name in state if name not in found]
    return {name: state[name] for name in (*others[:first], *order, *others[first:])}


@pytest.mark.parametrize("encoder", ["resnet34", "tu-mobilenetv3_large_100"])
@pytest.mark.parametrize("network", ["Unet", "UnetPlusPlus"])
def test_unets_have_the_logits_of_segmentation_models_pytorch(network, encoder):
    reference = randomise(getattr(smp, network)(encoder, encoder_weights=None, classes=21))
    backbone = f"architecture.backbone.name={encoder.removeprefix('tu-')}"
    ours = built(f"architecture={network.lower()}", backbone, classes=21)
    state = {
        name: tensor
        for name, tensor in reference.state_dict().items()
        if not name.startswith("encoder.model.") or name.removeprefix("encoder.model.")
        in ours.backbone.body.state_dict()
    }  # fmt: skip
    ours.load_state_dict(in_order(ours, nested(state) if network == "UnetPlusPlus" else state))
    assert_same_logits(ours, reference, 1e-5, (64, 96), (32, 32))


@pytest.mark.parametrize("network", ["unet", "unetplusplus"])
def test_unets_of_any_size_and_backbone(network):
    """Without a map of stride 2, the fourth level has nothing to join."""
    for name in ("test_resnet", "convnext_atto"):
        ours = built(f"architecture={network}", f"architecture.backbone.name={name}", classes=3)
        for size in ((32, 32), (33, 50)):
            assert ours(torch.rand(1, 3, *size))["logits"].shape == (1, 3, *size)


@pytest.mark.parametrize(
    ("architecture", "backbone", "expected"),
    [
        # MMSegmentation's networks.
        ("semantic_fpn", "resnet50c", 28_497_907),
        ("ocrnet", "hrnet_w18_small_v2", 6_378_496),
        ("ocrnet", "hrnet_w18", 12_080_036),
        ("ocrnet", "hrnet_w48", 70_371_446),
        ("unetplusplus", "resnet34", 26_081_219),  # segmentation_models_pytorch's
    ],
)
def test_parameters_with_19_classes(architecture, backbone, expected):
    with torch.device("meta"):
        ours = built(f"architecture={architecture}", f"architecture.backbone.name={backbone}",
                     classes=19)  # fmt: skip
    assert sum(p.numel() for p in ours.parameters()) == expected


PIDNET = {"s": (128, 7_720_871, 7_625_651), "m": (128, 28_762_983, 28_538_387),
          "l": (256, 37_314_183, 36_939_443)}  # fmt: skip


@pytest.mark.parametrize("size", PIDNET)
def test_parameters_of_pidnet(size):
    """With 19 classes, in training and in use; the authors' code has two biases more, before batch
    norms, which take them off again."""
    channels, *expected = PIDNET[size]
    for auxiliary, count in zip(("true", "false"), expected, strict=True):
        with torch.device("meta"):
            ours = built("architecture=pidnet", f"architecture.backbone.name=pidnet_{size}",
                         f"architecture.channels={channels}", f"architecture.auxiliary={auxiliary}",
                         classes=19)  # fmt: skip
        assert sum(p.numel() for p in ours.parameters()) == count


def test_pidnet_starts_from_weights_without_boundary_branch(tmp_path):
    """By MMSegmentation's names. What is there is taken; the stem and the I branch have to be."""
    weights = built("architecture=pidnet").backbone.state_dict()
    state = {name: value.clone().normal_() for name, value in weights.items()
             if value.is_floating_point() and not name.startswith(("derivative", "differences"))}
    theirs = {re.sub(r"^integral", "i_branch_layers", name): value for name, value in state.items()}
    torch.save(theirs, tmp_path / "pidnet.pth")
    branches = ThreeBranches("pidnet_s", str(tmp_path / "pidnet.pth"))
    found = branches.state_dict()
    assert all(torch.equal(found[name], value) for name, value in state.items())
    torch.save({k: v for k, v in theirs.items() if "i_branch_layers.2" not in k},
               tmp_path / "part.pth")  # fmt: skip
    with pytest.raises(UserError, match="missing in the file: integral.2"):
        ThreeBranches("pidnet_s", str(tmp_path / "part.pth"))


def test_hrnet_takes_the_weights_of_a_classifier(tmp_path):
    """Whose head is left out."""
    state = timm.create_model("hrnet_w18_small").state_dict()
    torch.save(state, tmp_path / "hrnet.pth")
    body = HRNet("hrnet_w18_small", str(tmp_path / "hrnet.pth")).body.state_dict()
    assert len(body) < len(state)
    assert all(torch.equal(value, state[name]) for name, value in body.items())
