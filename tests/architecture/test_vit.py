"""Plain vision transformers, DPT and the simple feature pyramid: the features and logits of
independent code on random weights, and the published numbers of parameters."""

import pytest
import torch
import transformers
from conftest import composed
from randomised import randomise
from test_modern import assert_same_logits, renamed, with_joined
from timm.layers import resample_abs_pos_embed
from torch import nn

from segtrain.architecture.backbone import is_plain
from segtrain.architecture.vit import PlainViT, SimpleFeaturePyramid, resampled
from segtrain.assembly import build_model
from segtrain.errors import UserError

TINY = {"embed_dim": 48, "depth": 3, "num_heads": 3, "img_size": 70}


def vit(
    name: str = "test_vit",
    layers: list[int] | int = 1,
    norm: bool = False,
    patch_size: int | None = None,
    weights: str = "none",
    rank: int | None = None,
    **timm_arguments,
) -> PlainViT:
    return PlainViT(name, weights, layers, norm, patch_size, timm_arguments, rank, 16.0).eval()


def built(*overrides: str, classes: int = 150) -> nn.Module:
    return build_model(composed(*overrides, "architecture.backbone.weights=none"), classes).eval()


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


DINOV2 = [
    (r"^encoder\.layer\.", "blocks."),
    (r"^embeddings\.", ""),
    (r"patch_embeddings\.projection", "patch_embed.proj"),
    (r"^position_embeddings", "pos_embed"),
    (r"^register_tokens", "reg_token"),
    (r"^layernorm", "norm"),
    (r"attention\.", "attn."),
    (r"o_proj", "proj"),
    (r"layer_scale(\d)\.lambda1", r"ls\1.gamma"),
]


DINOV3 = [
    (r"^model\.layer\.", "blocks."),
    (r"layer_scale(\d)\.lambda1", r"gamma_\1"),
    (r"patch_embeddings", "patch_embed.proj"),
    (r"up_proj", "fc1"),
    (r"down_proj", "fc2"),
    *DINOV2,
]


def dinov2(registers: bool) -> transformers.PreTrainedModel:
    settings = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3,
                "image_size": 70, "patch_size": 14}  # fmt: skip
    if registers:
        config = transformers.Dinov2WithRegistersConfig(**settings)
        return randomise(transformers.Dinov2WithRegistersModel(config))
    return randomise(transformers.Dinov2Model(transformers.Dinov2Config(**settings)))


def load_dinov2(ours: PlainViT, reference: nn.Module) -> None:
    state = with_joined(reference.state_dict(), ["q_proj", "k_proj", "v_proj"], "qkv")
    state = renamed(state, DINOV2)
    del state["mask_token"]
    if "reg_token" in state:  # timm adds the class token's position to the token
        state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    ours.body.load_state_dict(state)


@pytest.mark.parametrize("registers", [False, True])
def test_dinov2_has_the_features_of_transformers(registers):
    """At the size of the weights, and where position embeddings are resampled up and down."""
    reference = dinov2(registers)
    name = "vit_small_patch14_reg4_dinov2" if registers else "vit_small_patch14_dinov2"
    ours = vit(name, 2, norm=True, **TINY)
    load_dinov2(ours, reference)
    for size in ((70, 70), (42, 98), (28, 14), (126, 154)):
        image = torch.rand(2, 3, *size) * 255
        with torch.no_grad():
            found = reference(ours.normalize(image), output_hidden_states=True)
            maps = ours(image)
        for hidden, x in zip(found.hidden_states[-2:], maps, strict=True):
            patches = reference.layernorm(hidden)[:, 5 if registers else 1 :]
            expected = patches.transpose(1, 2).reshape(2, 48, size[0] // 14, size[1] // 14)
            assert (x - expected).abs().max() <= 1e-5 * expected.std()


def test_dinov3_has_the_features_of_transformers():
    """Their biases of queries and values are zero in all published weights, and timm has none."""
    config = transformers.DINOv3ViTConfig(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=192,
        num_register_tokens=4, image_size=64,
    )  # fmt: skip
    reference = randomise(transformers.DINOv3ViTModel(config))
    ours = vit("vit_small_patch16_dinov3", norm=True, embed_dim=48, depth=3, num_heads=3)
    state = {k: v for k, v in reference.state_dict().items() if k != "embeddings.mask_token"}
    biases = [name for name in state if name.endswith(("q_proj.bias", "v_proj.bias"))]
    for name in biases:
        state.pop(name).zero_()
    state = renamed(with_joined(state, ["q_proj", "k_proj", "v_proj"], "qkv"), DINOV3)
    ours.body.load_state_dict(state)
    for size in ((64, 64), (48, 112), (16, 16)):
        image = torch.rand(2, 3, *size) * 255
        with torch.no_grad():
            patches = reference(ours.normalize(image)).last_hidden_state[:, 5:]
            (x,) = ours(image)
        expected = patches.transpose(1, 2).reshape(x.shape)
        assert (x - expected).abs().max() <= 1e-5 * expected.std()


# What `transformers` counts, without its mask token. With registers the class token's position is
# part of that token; DINOv3's biases of queries and values are zero, and left out.
COUNTS = {
    "vit_small_patch14_dinov2": 22_056_192,
    "vit_base_patch14_dinov2": 86_579_712,
    "vit_large_patch14_dinov2": 304_367_616,
    "vit_giant_patch14_dinov2": 1_136_479_232,
    "vit_small_patch14_reg4_dinov2": 22_057_728 - 384,
    "vit_small_patch16_dinov3": 21_596_160 - 12 * 2 * 384,
    "vit_small_plus_patch16_dinov3": 28_692_480 - 12 * 2 * 384,
    "vit_base_patch16_dinov3": 85_659_648 - 12 * 2 * 768,
    "vit_large_patch16_dinov3": 303_128_576 - 24 * 2 * 1024,
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters(name):
    with torch.device("meta"):
        assert count(vit(name, norm=True)) == COUNTS[name]


TWO_BLOCKS = {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 56}


@pytest.mark.parametrize(
    "name",
    ["vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3",
     "eva02_base_patch14_448", "deit3_small_patch16_224"],
)  # fmt: skip
@pytest.mark.parametrize("size", [(1, 1), (33, 47), (112, 64)])
def test_any_size(name, size):
    ours = vit(name, [0, 1], **TWO_BLOCKS)
    with torch.no_grad():
        maps = ours(torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8))
    assert [x.shape[1] for x in maps] == ours.channels == [48, 48]
    for x, stride in zip(maps, ours.strides, strict=True):
        assert x.shape[2:] == tuple(-(-length // stride) for length in size)
        assert x.isfinite().all()


def test_maps_cover_the_image_and_nothing_of_its_padding():
    """Cells that hold where their centre is lie evenly over the image afterwards."""
    ours = vit()
    height, width = 40, 90  # 3x6 cells of 16 pixels
    rows = (torch.arange(3) + 0.5)[:, None].expand(3, 6) * 16
    columns = ((torch.arange(6) + 0.5) * 16).expand(3, 6)
    found = ours.onto_image(torch.stack([rows, columns])[None], torch.Size((height, width)))[0]
    for places, cells, length in ((found[0, :, 0], 3, height), (found[1, 0], 6, width)):
        expected = (torch.arange(cells) + 0.5) * length / cells
        torch.testing.assert_close(places, expected.clamp(min=8))  # the first cell's centre
    whole = torch.rand(2, 3, 3, 6)
    assert torch.equal(ours.onto_image(whole, torch.Size((48, 96))), whole)


def test_layers_by_number_and_by_index():
    last, some = vit(layers=2), vit(layers=[1, 3])
    assert (len(last.body.blocks), len(some.body.blocks)) == (6, 4)
    some.body.load_state_dict(
        {k: v for k, v in last.body.state_dict().items() if k in some.body.state_dict()}
    )
    full = vit(layers=6)
    full.body.load_state_dict(last.body.state_dict())
    image = torch.rand(1, 3, 32, 48) * 255
    with torch.no_grad():
        expected = full(image)
        for model, indices in ((last, [4, 5]), (some, [1, 3])):
            for x, index in zip(model(image), indices, strict=True):
                assert torch.equal(x, expected[index])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnet18"}, "'resnet18' is no plain vision transformer.*vit_base_patch14"),
        ({"layers": [0, 6]}, r"'test_vit' has 6 blocks, 0 to 5.*found \[0, 6\]"),
        ({"layers": 7}, "has 6 blocks"),
        ({"layers": [3, 1]}, "in rising order"),
        ({"name": "eva02_tiny_patch14_224", "norm": True}, "no norm behind.*norm=false"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(UserError, match=message):
        vit(**settings)


def test_which_models_are_plain():
    plain = ("vit_base_patch14_dinov2", "vit_small_patch16_dinov3", "eva02_base_patch14_448",
             "deit3_small_patch16_224", "vit_base_patch14_dinov2.lvd142m")  # fmt: skip
    others = ("resnet50", "swin_tiny_patch4_window7_224", "sam2_hiera_tiny", "efficientvit_b0", "x")
    assert [*map(is_plain, plain), *map(is_plain, others)] == [True] * 5 + [False] * 5


def test_file_of_the_authors(tmp_path):
    """Their names and mask token, at another patch size and so with other positions."""
    donor = vit("vit_small_patch14_dinov2", norm=True, **TINY)
    state = donor.body.state_dict() | {"mask_token": torch.zeros(1, 48)}
    torch.save(state, tmp_path / "dinov2.pth")
    file = str(tmp_path / "dinov2.pth")
    same = vit("vit_small_patch14_dinov2", norm=True, weights=file, **TINY)
    image = torch.rand(1, 3, 70, 56) * 255
    with torch.no_grad():
        assert torch.equal(same(image)[0], donor(image)[0])
    other = vit("vit_small_patch14_dinov2", patch_size=16, weights=file, **TINY | {"img_size": 64})
    resampled = resample_abs_pos_embed(state["pos_embed"], [4, 4], [5, 5])
    torch.testing.assert_close(other.body.pos_embed.data, resampled)
    with pytest.raises(UserError, match="does not fit"):
        vit("vit_small_patch14_dinov2", weights=file, **TINY | {"embed_dim": 60})


def dpt(
    size: int, small: bool, readout: str, norm: bool
) -> transformers.DPTForSemanticSegmentation:
    sizes = {"hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 2,
             "intermediate_size": 192, "backbone_out_indices": [0, 2, 3, 5],
             "neck_hidden_sizes": [8, 12, 16, 20], "fusion_hidden_size": 24}  # fmt: skip
    config = transformers.DPTConfig(
        **(sizes if small else {}),
        image_size=size,
        layer_norm_eps=1e-6,
        readout_type=readout,
        use_batch_norm_in_fusion_residual=norm,
        num_labels=150,
    )
    return randomise(transformers.DPTForSemanticSegmentation(config))


def our_dpt(size: int, small: bool, readout: str, norm: bool) -> nn.Module:
    sizes = ["architecture.backbone.name=test_vit", "architecture.backbone.layers=[0,2,3,5]",
             "architecture.level_channels=[8,12,16,20]", "architecture.channels=24"]  # fmt: skip
    return built("architecture=dpt", f"architecture.readout={readout}", *sizes * small,
                 f"architecture.fusion_norm={norm}", "architecture.align_corners=true",
                 f"+architecture.backbone.timm_arguments.img_size={size}")  # fmt: skip


DPT = [
    (r"^dpt\.embeddings\.", "backbone.body."),
    (r"patch_embeddings\.projection", "patch_embed.proj"),
    (r"position_embeddings", "pos_embed"),
    (r"^dpt\.encoder\.layer\.", "backbone.body.blocks."),
    (r"attention\.attention\.", "attn."),
    (r"attention\.output\.dense", "attn.proj"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"output\.dense", "mlp.fc2"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"^neck\.reassemble_stage\.layers\.(\d)\.resize", r"reassemble.\1.scale"),
    (r"^neck\.reassemble_stage\.layers", "reassemble"),
    (r"^neck\.reassemble_stage\.readout_projects\.(\d)", r"reassemble.\1.join"),
    (r"^neck\.convs", "laterals"),
    (r"^neck\.fusion_stage\.layers\.(\d)", lambda found: f"fusions.{3 - int(found[1])}"),
    (r"residual_layer1", "lateral.layers"),
    (r"residual_layer2", "refine.layers"),
    (r"^(auxiliary)?(_head|head)\.head\.4", lambda found: f"{found[1] or 'head'}.classifier"),
    (r"^(auxiliary)?(_head|head)\.head", lambda found: f"{found[1] or 'head'}.conv"),
]
UNITS = {True: {"convolution1": 1, "batch_norm1": 2, "convolution2": 4, "batch_norm2": 5},
         False: {"convolution1": 1, "convolution2": 3}}  # fmt: skip


def load_dpt(ours: nn.Module, reference: nn.Module, norm: bool) -> int:
    """How many parameters of theirs nothing uses: the last level has nothing to be added to, and
    no map is behind the transformer's last norm."""
    state = with_joined(reference.state_dict(), ["query", "key", "value"], "qkv")
    unused = ("neck.fusion_stage.layers.0.residual_layer1", "dpt.layernorm")
    names = {name for name, _ in reference.named_parameters() if name.startswith(unused)}
    rules = [*DPT, *((rf"layers\.{name}", f"layers.{n}") for name, n in UNITS[norm].items())]
    ours.load_state_dict(
        renamed({k: v for k, v in state.items() if not k.startswith(unused)}, rules)
    )
    return sum(reference.get_parameter(name).numel() for name in names)


def assert_same_dpt(size: int, small: bool, readout: str, norm: bool) -> nn.Module:
    """At the size of the position embeddings, which theirs resamples in its own way."""
    reference, ours = dpt(size, small, readout, norm), our_dpt(size, small, readout, norm)
    unused = load_dpt(ours, reference, norm)
    assert count(ours) == count(reference) - unused

    def at_stride_2(image: torch.Tensor) -> torch.Tensor:
        """Before theirs are enlarged once more, which is more than the image where patches are odd
        in number."""
        upsample = reference.head.head[-1]
        reference.head.head[-1] = nn.Identity()
        logits = reference(image).logits
        reference.head.head[-1] = upsample
        half = [length // 2 for length in image.shape[2:]]
        return nn.functional.interpolate(logits, half, mode="bilinear", align_corners=True)

    assert_same_logits(ours, at_stride_2, 1e-4, (size, size))
    image = torch.rand(1, 3, size, size) * 255
    found = []
    reference.auxiliary_head.register_forward_hook(lambda *calls: found.append(calls[2]))
    with torch.no_grad():
        reference(ours.backbone.normalize(image))
        auxiliary = ours.auxiliary(ours.fused(image))
    assert (auxiliary - found[0]).abs().max() <= 1e-4 * found[0].std()
    return ours


@pytest.mark.parametrize("size", [128, 80])
@pytest.mark.parametrize(
    ("readout", "norm"), [("project", False), ("project", True), ("ignore", True), ("add", False)]
)
def test_dpt_has_the_logits_of_transformers(readout, norm, size):
    """Where there are 8x8 patches, and 5x5, which do not divide by two."""
    assert_same_dpt(size, True, readout, norm)


@pytest.mark.slow
def test_dpt_of_vit_base_has_the_logits_of_transformers():
    ours = assert_same_dpt(384, False, "project", False)
    # Theirs counts a residual unit and a norm more, which nothing uses; 112.1 M at 512x512.
    assert count(ours) == 111_803_884 - 1_180_160 - 2 * 768


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["architecture/backbone=timm"], "takes a plain vision transformer.*backbone=vit_dpt"),
        (["architecture.backbone.layers=3"], "takes four maps, 'test_vit' gives 3"),
        (["architecture.backbone.name=test_vit2"], "no class token for architecture.readout=proj"),
    ],
)
def test_dpt_says_what_it_needs(overrides, message):
    small = ["architecture.backbone.name=test_vit", "architecture.backbone.layers=[0,1,2,3]"]
    with pytest.raises(UserError, match=message):
        built("architecture=dpt", *small * ("timm" not in overrides[0]), *overrides)


def pyramid(name: str = "test_vit", patch_size: int | None = None) -> SimpleFeaturePyramid:
    return SimpleFeaturePyramid(name, "none", False, patch_size, {}, None, 16.0, 32).eval()


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (64, 96)])
def test_simple_feature_pyramid(size):
    ours = pyramid()
    with torch.no_grad():
        maps = ours(torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8))
    assert [x.shape[1] for x in maps] == ours.channels
    for x, stride in zip(maps, (4, 8, 16, 32), strict=True):
        assert x.shape[2:] == tuple(-(-length // stride) for length in size)


def test_simple_feature_pyramid_sees_what_the_transformer_sees():
    """Not more padding, though its last map has twice the stride."""
    ours, plain = pyramid(), vit()
    plain.body.load_state_dict(ours.body.state_dict())
    image = torch.rand(1, 3, 48, 80) * 255
    with torch.no_grad():
        (last,) = plain(image)
        torch.testing.assert_close(ours(image)[2], ours.levels[2](last))


def test_simple_feature_pyramid_needs_patches_of_16_pixels():
    with pytest.raises(UserError, match=r"patches of 14 pixels.*patch_size=16"):
        pyramid("vit_small_patch14_dinov2")


@pytest.mark.parametrize("name", ["upernet", "deeplabv3plus", "pspnet"])
def test_pyramid_below_other_heads(name):
    ours = built(f"architecture={name}", "architecture/backbone=vit_pyramid",
                 "architecture.backbone.name=test_vit", classes=4)  # fmt: skip
    with torch.no_grad():
        logits = ours(torch.zeros(1, 3, 70, 95, dtype=torch.uint8))["logits"]
    assert logits.shape[:2] == (1, 4)
    assert logits.isfinite().all()


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("new", [(16, 16), (5, 9), (23, 40)])
def test_positions_are_resampled_as_timm_does(new, antialias):
    positions = torch.randn(1, 16 * 16, 6)
    expected = resample_abs_pos_embed(positions, list(new), [16, 16], 0, antialias=antialias)
    got = resampled(positions, (16, 16), new, antialias)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
