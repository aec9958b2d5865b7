"""Every semantic architecture of conf/ as torch.export program and ONNX file; a new one unasked."""

import itertools
import json

import numpy as np
import onnx
import pytest
import torch
from conftest import architectures, composed, small_network
from timm.layers.padding import get_same_padding
from torch import nn
from torch.export import Dim

from segtrain.architecture.semantic.deeplabv3 import ASPP
from segtrain.architecture.semantic.pspnet import region_averages
from segtrain.assembly import build_model, make
from segtrain.errors import UserError
from segtrain.export.compare import REQUIRED_AGREEMENT, Comparison, compare, smooth_pictures
from segtrain.export.deployed import Deployed, one_look
from segtrain.export.detector import DeployedDetector, compare_detections
from segtrain.export.onnx import load_onnx, write_onnx
from segtrain.export.torch_export import (
    TRACED_BATCH,
    TRACED_SIZE,
    load_program,
    same_padding,
    trace,
    write_program,
)

CLASSES = 5
NAMES = architectures("semantic") + architectures("mask_classification")
FAST = ("deeplabv2_vgg16", "deeplabv3_torchvision", "fcn32s", "parsenet")
SIZES = [(65, 129), (150, 101)]  # of the form 8k + 1, where nothing is padded, and not
PICTURES = smooth_pictures()
IMAGES = torch.from_numpy(np.stack(PICTURES)).permute(0, 3, 1, 2).contiguous()
TIMM = ["architecture/backbone=timm", "architecture.backbone.weights=none"]
SWIN = [
    *TIMM,
    "architecture.backbone.name=swin_tiny_patch4_window7_224",
    "+architecture.backbone.timm_arguments={depths: [1,1,1,1], embed_dim: 12}",
]


def lively(*overrides: str) -> nn.Module:
    """A network whose scores differ from place to place, as a trained one's do."""
    torch.manual_seed(0)
    model = build_model(composed(*overrides), CLASSES).train()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # A softmax over the pixels of OCRNet's regions would make rounding errors large.
            if "classifier" in name and not name.startswith("regions."):
                parameter.normal_(0, 0.5)
        model(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8))
    return model.eval()


def small(name: str) -> nn.Module:
    chosen = f"architecture={name}"
    return lively(chosen, *small_network(chosen))


def whole(network: nn.Module, sizes=SIZES):
    """One look, with terms that let no class win everywhere, whatever the random weights."""
    looks = [nn.functional.interpolate(IMAGES, size, mode="bilinear") for size in sizes]
    with torch.no_grad():
        scores = [network(look)["logits"].flatten(2) for look in looks]
    means = torch.cat(scores, 2).median(2).values.mean(0)
    return make(composed()["inference"] | {"logit_adjustment": (-means).tolist(), "flip": True})


def exported(format_name: str, network, folder, size=None):
    program = trace(network, size)
    if format_name == "onnx":
        write_onnx(program, folder / "model.onnx", {}, network.returns)
        return load_onnx(folder / "model.onnx")
    write_program(program, folder / "model.pt2", {})
    return load_program(folder / "model.pt2")


def compared(network: nn.Module, format_name: str, folder, size=None, sizes=SIZES) -> Comparison:
    """The worst comparison; pictures go through the networks one, and three at a time."""
    inference = whole(network, sizes)
    run = exported(format_name, Deployed(network, inference, "logits"), folder, size)
    assert TRACED_SIZE not in sizes
    assert len(PICTURES) - 1 != TRACED_BATCH
    look = one_look(inference)
    classes = set()

    def original(image: torch.Tensor) -> torch.Tensor:
        logits = torch.stack(look(network, list(image)))
        classes.update(logits.argmax(1).unique().tolist())
        return logits

    results = [compare(run, original, PICTURES, size) for size in sizes]
    assert len(classes) > 1
    return min(results, key=lambda result: result.label_agreement)


def assert_equal(result: Comparison, name: str = "") -> None:
    assert result.label_agreement >= REQUIRED_AGREEMENT
    # Where two cells are equal but for rounding, DeconvNet's switches lead to either of them.
    if name != "deconvnet":
        assert result.largest_difference <= 1e-4 * max(1.0, result.largest_logit)


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]
)
@pytest.mark.parametrize("format_name", ["torch_export", "onnx"])
def test_every_semantic_architecture(name, format_name, tmp_path):
    assert_equal(compared(small(name), format_name, tmp_path), name)


def test_image_features_of_windows():
    """Of maps that are larger than the window in one direction or both, or not."""
    torch.manual_seed(0)
    aspp = ASPP(4, 6, [2], separable=False, pooling_window=(3, 4), pooling_norm=False).eval()
    sides = {"x": {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}}
    graph = torch.export.export(aspp, (torch.randn(1, 4, 2, 3),), dynamic_shapes=sides).module()
    for height, width in ((5, 9), (2, 9), (7, 3), (3, 4), (2, 2)):
        x = torch.randn(1, 4, height, width)
        torch.testing.assert_close(graph(x), aspp(x))


@pytest.mark.slow
@pytest.mark.parametrize("format_name", ["torch_export", "onnx"])
def test_deeplab_with_image_features_of_windows(format_name, tmp_path):
    chosen = "architecture=deeplabv3"
    window = ["architecture.pooling_window=[32,48]", "architecture.pooling_norm=false"]
    network = lively(chosen, *small_network(chosen), *window)
    assert_equal(compared(network, format_name, tmp_path, sizes=[*SIZES, (23, 200)]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fcn8s", "deconvnet", "pspnet", "deeplabv3"])
@pytest.mark.parametrize("format_name", ["torch_export", "onnx"])
def test_full_size(name, format_name, tmp_path):
    network = lively(f"architecture={name}", "architecture.backbone.weights=none")
    assert_equal(compared(network, format_name, tmp_path), name)


@pytest.mark.slow
@pytest.mark.parametrize("format_name", ["torch_export", "onnx"])
def test_backbone_that_permutes_its_maps(format_name, tmp_path):
    convnext = lively("architecture=deeplabv3", *TIMM, "architecture.backbone.name=test_convnext")
    assert_equal(compared(convnext, format_name, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("format_name", ["torch_export", "onnx"])
def test_backbone_padded_as_tensorflow_does(format_name, tmp_path):
    network = lively("architecture=deeplabv3plus", *TIMM, "architecture.channels=16",
                     "architecture.backbone.name=tf_efficientnet_lite0",
                     "architecture.backbone.output_stride=16")  # fmt: skip
    assert_equal(compared(network, format_name, tmp_path))


def test_padding_of_whole_numbers_is_timms():
    for case in itertools.product(range(1, 40), (1, 2, 3, 5, 7), (1, 2, 3, 4), (1, 2)):
        assert same_padding(*case) == get_same_padding(*case)


@pytest.mark.parametrize("format_name", ["torch_export", "onnx"])
def test_fixed_size_for_backbones_with_windows(format_name, tmp_path):
    swin = lively("architecture=fcn_torchvision", *SWIN)
    with pytest.raises(UserError, match="size="):
        trace(Deployed(swin, make(composed()["inference"]), "logits"), None)
    size = (64, 96)
    assert_equal(compared(swin, format_name, tmp_path, size=size, sizes=[size]))


@pytest.mark.parametrize("format_name", ["torch_export", "onnx"])
def test_labels(format_name, tmp_path):
    network = small("parsenet")
    inference = whole(network)
    run = exported(format_name, Deployed(network, inference, "labels"), tmp_path)
    labels = run(IMAGES[:, :, :100, :90])
    expected = torch.stack(one_look(inference)(network, list(IMAGES[:, :, :100, :90]))).argmax(1)
    assert labels.dtype == torch.uint8
    assert (labels == expected).float().mean() >= REQUIRED_AGREEMENT


@pytest.mark.parametrize("name", [n for n in architectures("instance") if n != "fpn"])
@pytest.mark.parametrize(
    "format_name", ["torch_export", pytest.param("onnx", marks=pytest.mark.slow)]
)
def test_every_detector_at_one_size(name, format_name, tmp_path):
    chosen = (f"architecture={name}", "dataset=shapes_instances")
    config = composed(*chosen, *small_network(*chosen))
    torch.manual_seed(0)
    network = build_model(config, CLASSES).eval()
    settings = {"short_sides": [80, 96], "long_side": 200, "flip": True, "min_score": 0.0}
    inference = make(config["inference"] | settings)
    size = (65, 80)
    run = exported(format_name, DeployedDetector(network, inference), tmp_path, size)
    result = compare_detections(run, DeployedDetector(network, inference), PICTURES, size)
    assert result.objects >= 20
    assert result.agreement >= 0.95  # so many objects of untrained networks nearly coincide
    assert result.largest_difference <= 1e-3
    nothing = DeployedDetector(network, make(config["inference"] | settings | {"min_score": 0.9}))
    outputs = exported(format_name, nothing, tmp_path, size)(IMAGES[:1, :, :65, :80])
    assert [len(output) for output in outputs] == [0, 0, 0, 0]


def test_files_say_what_they_are_and_nothing_of_this_machine(tmp_path):
    network = Deployed(small("parsenet"), make(composed()["inference"]), "logits")
    description = {"task": "semantic", "labels": {"names": ["sky", "road"]}}
    program = trace(network, None)
    write_onnx(program, tmp_path / "model.onnx", description, network.returns)
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["task"] == "semantic"
    assert json.loads(metadata["labels"]) == description["labels"]
    shapes = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [["batch", 3, "height", "width"], ["batch", CLASSES, "height", "width"]]
    write_program(program, tmp_path / "model.pt2", description)
    extra = {"config.json": ""}
    torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    assert json.loads(extra["config.json"]) == description
    for file in ("model.onnx", "model.pt2"):
        assert b".py" not in (tmp_path / file).read_bytes()


def test_unknown_result_is_refused():
    with pytest.raises(UserError, match="logits or labels"):
        Deployed(small("parsenet"), make(composed()["inference"]), "scores")


@pytest.mark.parametrize("shape", [(2, 7, 5, 7), (1, 3, 33, 20), (1, 2, 1, 1), (2, 3, 4, 13)])
def test_region_averages_are_those_of_adaptive_pooling(shape):
    bins = [1, 2, 3, 6]
    x, again = (torch.manual_seed(0) and torch.randn(shape).requires_grad_() for _ in range(2))
    levels = region_averages(x, bins)
    expected = [nn.functional.adaptive_avg_pool2d(again, size) for size in bins]
    for got, wanted in zip(levels, expected, strict=True):
        torch.testing.assert_close(got, wanted)
    for parts in (levels, expected):
        sum(part.square().sum() for part in parts).backward()
    torch.testing.assert_close(x.grad, again.grad)


VITS = ["vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3",
        "eva02_base_patch14_448"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", VITS)
@pytest.mark.parametrize("format_name", ["torch_export", "onnx"])
def test_plain_transformers_resample_their_positions(name, format_name, tmp_path):
    """Their low-rank terms are merged: the graph has the weights of a plain transformer."""
    small = "{embed_dim: 48, depth: 2, num_heads: 3, img_size: 80}"
    network = lively("architecture=linear", "architecture.backbone.weights=none",
                     f"architecture.backbone.name={name}", "architecture.backbone.norm=false",
                     f"+architecture.backbone.timm_arguments={small}",
                     "architecture.backbone.lora_rank=2")  # fmt: skip
    assert_equal(compared(network, format_name, tmp_path, sizes=[*SIZES, (70, 70)]))


@pytest.mark.slow
@pytest.mark.parametrize("format_name", ["torch_export", "onnx"])
def test_pyramid_of_a_plain_transformer(format_name, tmp_path):
    network = lively("architecture=upernet", "architecture/backbone=vit_pyramid",
                     "architecture.backbone.weights=none", "architecture.backbone.name=test_vit",
                     "architecture.channels=16")  # fmt: skip
    assert_equal(compared(network, format_name, tmp_path))
