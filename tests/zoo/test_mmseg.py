"""MMSegmentation's rows and name maps against its own code (version 1.2.2).

`mmseg_states.txt.gz` lists names and shapes of its models as it builds them, K for the number of
classes; `mmseg_logits.npz` holds the logits of its decoding heads for the weights and pictures that
`drawn` and `picture` make, 7 classes each.
"""

import functools
import gzip
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import composed
from torch import Tensor, nn

from segtrain.architecture.weights import load_weights
from segtrain.assembly import make
from segtrain.dataset.labels import CONTEXT, CONTEXT_59, CONTEXT_CLASSES
from segtrain.zoo.catalogue import entries
from segtrain.zoo.entry import Entry
from segtrain.zoo.names.mmseg import recognised, renamed

HERE = Path(__file__).parent
ROWS = entries("mmseg")
CLASSES = 33  # where no values are compared


def shapes_of_models() -> dict[tuple[str, str], dict[str, str]]:
    """Names and shapes by model and backbone, such as pspnet and r50b."""
    text = gzip.decompress((HERE / "mmseg_states.txt.gz").read_bytes()).decode()
    found = {}
    for line in text.splitlines():
        if line.startswith("["):
            lines = found.setdefault(tuple(line.strip("[]").split()), {})
        else:
            name, shape = line.split(" ")
            lines[name] = shape
    return found


SHAPES = shapes_of_models()
NUMBERS = np.random.RandomState(0).random_sample(1_000_003).astype(np.float32)
LOGITS = np.load(HERE / "mmseg_logits.npz")


def files_shapes(model: str, backbone: str, num_classes: int) -> dict[str, tuple[int, ...]]:
    classes = {"K": num_classes, "K+1": num_classes + 1}
    return {
        name: tuple(classes.get(side) or int(side) for side in shape.split("x") if side)
        for name, shape in SHAPES[model, backbone].items()
    }


def empty(model: str, backbone: str) -> dict[str, Tensor]:
    """A state dict of the names and shapes without values."""
    shapes = files_shapes(model, backbone, CLASSES)
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    """Weights that follow from their name: lively, and of no growing scale through the network."""
    start = zlib.crc32(name.encode())
    values = torch.from_numpy(np.resize(np.roll(NUMBERS, -start), shape))
    match name.rsplit(".", 1)[1]:
        case "running_mean" | "bias":
            return 0.2 * values - 0.1
        case "running_var":
            return 0.5 + values
        case "scale":
            return -0.02 * values
        case "num_batches_tracked":
            return torch.tensor(0)
    if len(shape) == 1:
        return 0.5 + values
    return (2 * values - 1) * (3 / (values.numel() // shape[0])) ** 0.5


def picture(height: int, width: int) -> Tensor:
    values = np.random.RandomState(1000 * height + width).randint(0, 256, (1, 3, height, width))
    return torch.from_numpy(values.astype(np.uint8))


@functools.cache
def architecture_of(overrides: tuple[str, ...]) -> dict:
    return composed(*overrides, "architecture.backbone.weights=none")["architecture"]


@functools.cache
def empty_network(overrides: tuple[str, ...]) -> nn.Module:
    with torch.device("meta"):
        return make(architecture_of(overrides), num_classes=CLASSES)


def own_shapes(own: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Of all that a file has to give."""
    return {
        name: tuple(value.shape)
        for name, value in own.items()
        if not name.endswith("num_batches_tracked")
    }


def model_and_backbone(row: Entry) -> tuple[str, str]:
    """As `mmseg_states.txt.gz` calls them."""
    patterns = (
        r"(mask2former)_(r\d+|swin-[a-z])[_-]",
        r"(segformer)_(mit-b\d)_",
        r"(pidnet)-(\w)_",
        r"(upernet)_(swin_\w+?_patch4_window\d+)_",
        r"(upernet)_(convnext_[a-z]+)_",
        r"(fpn|ocrnet|upernet)_([a-z0-9]+)_",
        r"([a-z0-9]+?)_(?:d6_)?(r\d+b?)-d",
    )
    model, backbone = next(filter(None, (re.match(p, row.name) for p in patterns))).groups()
    model = "sem_fpn" if model == "fpn" else model
    return model, backbone + ("b" if "rsb" in row.name else "")


def distinct_networks() -> list[Entry]:
    """A row of each network; its other files differ in nothing but the classes."""
    return list({row.architecture: row for row in reversed(ROWS.values())}.values())


@pytest.mark.parametrize("row", distinct_networks(), ids=lambda row: row.name)
def test_networks_take_files_whole(row):
    own = empty_network(row.architecture).state_dict()
    state = renamed(empty(*model_and_backbone(row)), own)
    assert own_shapes(state) == own_shapes(own)
    has_auxiliary = any(name.startswith("auxiliary.") for name in state)
    without = ("SegFormer", "Semantic FPN", "OCRNet", "Mask2Former")
    assert has_auxiliary == (row.system not in without)


@pytest.mark.parametrize("model", ["fcn", "pspnet", "deeplabv3", "deeplabv3plus", "encnet"])
def test_networks_without_auxiliary_head_leave_it_out(model):
    state = empty(model, "r50")
    without = {name: value for name, value in state.items() if not name.startswith("auxiliary")}
    own = empty_network(recognised(without).architecture).state_dict()
    assert own_shapes(renamed(state, own)) == own_shapes(renamed(without, own)) == own_shapes(own)


def comparisons() -> list:
    names = sorted({key.rsplit(" ", 1)[0] for key in LOGITS.files})
    large = [n for n in names if re.search("r101|b2|hr18_|pidnet-[ml]|upernet_(r50|conv)", n)]
    return [pytest.param(n, marks=pytest.mark.slow if n in large else ()) for n in names]


@pytest.fixture
def without_initial_weights(monkeypatch):
    """Networks that get their weights from a file need not draw them first."""
    for name in ("kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *arguments, **settings: tensor)


@pytest.mark.parametrize("name", comparisons())
def test_logits_are_mmsegs(name, without_initial_weights):
    """Of networks with each backbone, stride and dilation; pictures of three odd sizes."""
    row = ROWS[name]
    model, backbone = model_and_backbone(row)
    shapes = files_shapes(model, backbone, 7)
    state = {key: drawn(key, shape) for key, shape in shapes.items()}
    network = make(architecture_of(row.architecture), num_classes=7).eval()
    load_weights(network, renamed(state, network.state_dict()), name)
    differences = []
    for key in (key for key in LOGITS.files if key.startswith(f"{name} ")):
        size = tuple(map(int, key.rsplit(" ", 1)[1].split("x")))
        expected = torch.from_numpy(LOGITS[key])
        with torch.inference_mode():
            outputs = network(picture(*size))
        logits = outputs["logits"][0]
        assert logits.shape == expected.shape
        differences.append(float((logits - expected).abs().max() / expected.std()))
        assert torch.equal(logits.argmax(0), expected.argmax(0))
    assert len(differences) == 3
    assert max(differences) <= 1e-4
    assert outputs["align_corners"] == ("769x769" in name or "pidnet" in name)


def test_queries_are_mmsegs(without_initial_weights):
    """`mmseg_queries.npz` holds classes of all queries, and masks of every seventh."""
    row = ROWS["mask2former_r50_8xb2-90k_cityscapes-512x1024"]
    state = {key: drawn(key, shape) for key, shape in files_shapes("mask2former", "r50", 7).items()}
    network = make(architecture_of(row.architecture), num_classes=7).eval()
    load_weights(network, renamed(state, network.state_dict()), row.name)
    references = np.load(HERE / "mmseg_queries.npz")
    for key in references.files:
        size, kind = key.split(" ")
        with torch.inference_mode():
            found = network.layers(picture(*map(int, size.split("x"))))[-1][kind][0]
        expected = torch.from_numpy(references[key])
        difference = (found[:: 7 if kind == "mask_logits" else 1] - expected).abs().max()
        assert difference <= 1e-4 * expected.std()


@pytest.mark.parametrize(("model", "backbone"), SHAPES)
def test_files_are_recognised_by_their_names(model, backbone):
    found = recognised(empty(model, backbone))
    rows = [row for row in ROWS.values() if model_and_backbone(row) == (model, backbone)]
    rows = [row for row in rows if not re.search("-d(16|32)|_d6_|769x769", row.name)]
    if not rows:  # one of which the zoo has none
        assert found is None
        return
    assert found.num_classes == CLASSES
    assert found.system.startswith(f"{rows[0].system} ")
    assert found.architecture == rows[0].architecture
    own = empty_network(found.architecture).state_dict()
    assert own_shapes(renamed(empty(model, backbone), own)) == own_shapes(own)
    assert recognised(own) is None


@pytest.mark.parametrize(
    "name",
    ["fcn_resnet50", "deeplabv3_resnet50", "maskrcnn_resnet50_fpn", "lraspp_mobilenet_v3_large"],
)
def test_torchvisions_files_are_not_mmsegs(name):
    from torchvision.models import get_model

    with torch.device("meta"):
        state = get_model(name, weights=None, weights_backbone=None).state_dict()
    assert recognised(state) is None


@pytest.mark.parametrize(
    "changed",
    [
        ("decode_head.bottleneck.", "decode_head.lateral_convs.0."),  # a part of UPerNet alone
        ("backbone.", "backbone.layers."),
        ("backbone.layer1.0.conv2.", "backbone.layer1.0.conv2.conv1."),  # ResNeSt
    ],
)
def test_other_models_of_mmsegs_are_not_recognised(changed):
    state = {name.replace(*changed): value for name, value in empty("pspnet", "r50").items()}
    assert recognised(state) is None


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_rows_say_where_files_lie_and_how_they_were_tested(row):
    folder = r"https://download\.openmmlab\.com/mmsegmentation/v0\.5/([a-z0-9_]+)/[^/]+/"
    found = re.fullmatch(folder + r"(.+)_\d{8}_\d{6}-([0-9a-f]{8})\.pth", row.address)
    own = [kind for kind in ("swin", "convnext") if f"upernet_{kind}" in row.name]  # their folders
    assert found.groups() == (*(own or model_and_backbone(row)[:1]), row.name, row.sha256)
    assert list(row.protocols) in (["single"], ["single", "multiscale"])
    figures = [protocol.published["miou"] for protocol in row.protocols.values()]
    assert 25 < figures[0] < 85
    assert figures == sorted(figures)
    crop = re.search(r"_(769|480|1024)x\1_|convnext.*_(512|640)x\2_", row.name)
    side = crop and (crop[1] or crop[2])
    for protocol in row.protocols.values():
        assert any(text.startswith("inference.size={") for text in protocol.inference)
        windows = [text for text in protocol.inference if "window.crop_size" in text]
        assert windows == ([f"inference.window.crop_size=[{side},{side}]"] if crop else [])


def test_classes_of_context_are_in_the_order_of_their_ids():
    names = [name for _, name in sorted(CONTEXT_CLASSES.items())]
    for row in ROWS.values():
        if row.dataset == "context59":
            assert list(row.classes) == names
        elif row.dataset == "context":
            assert list(row.classes) == ["background", *names]
        else:
            assert row.classes is None
    assert sorted(names) == sorted(CONTEXT_59.names)
    assert sorted(["background", *names]) == sorted(CONTEXT.names)
