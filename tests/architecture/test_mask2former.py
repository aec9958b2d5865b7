"""Mask2Former: what every query says after every layer, as independent code says it on random
weights; deformable attention beside a loop; published numbers of parameters."""

import pytest
import torch
from conftest import composed
from mask_classifiers import (
    STAGES,
    assert_same,
    load_mask2former,
    mask2former,
    over_image,
    padded,
    random_image,
)
from randomised import randomise
from torch import Tensor, nn
from transformers import PretrainedConfig, ResNetConfig, SwinConfig

from segtrain.architecture.mask_classification.deformable import (
    POINTS,
    DeformableAttention,
    centres,
)
from segtrain.assembly import build_model
from segtrain.contracts import Queries
from segtrain.errors import UserError

SMALL_HEAD = {"channels": 32, "heads": 4, "num_queries": 9, "encoder_layers": 2,
              "encoder_width": 48, "decoder_layers": 4, "decoder_width": 40}  # fmt: skip
SMALL = {
    "resnet": (
        ResNetConfig(hidden_sizes=[32, 64, 96, 128], depths=[2, 1, 1, 1], out_features=STAGES),
        ["+architecture.backbone.timm_arguments={layers: [2,1,1,1], channels: [8,16,24,32]}"],
    ),
    "swin": (
        SwinConfig(embed_dim=24, depths=[2, 2, 2, 1], num_heads=[1, 2, 3, 4], out_features=STAGES),
        ["architecture/backbone=swin_tiny",
         "+architecture.backbone.timm_arguments={embed_dim: 24, depths: [2,2,2,1], "
         "num_heads: [1,2,3,4]}"],
    ),
}  # fmt: skip


def built(*overrides: str, classes: int = 150) -> nn.Module:
    chosen = composed("architecture=mask2former", "architecture.backbone.weights=none", *overrides)
    return build_model(chosen, classes).eval()


def small_pair(backbone: str) -> tuple[nn.Module, nn.Module]:
    """Ours and that of transformers, with the same random weights."""
    config, overrides = SMALL[backbone]
    head = [f"architecture.{key}={value}" for key, value in SMALL_HEAD.items()]
    return loaded(built(*overrides, *head), theirs(config, **SMALL_HEAD))


def theirs(config: PretrainedConfig, **head: int) -> nn.Module:
    channels = head.get("channels", 256)
    return mask2former(
        config,
        feature_size=channels,
        mask_feature_size=channels,
        hidden_dim=channels,
        num_attention_heads=head.get("heads", 8),
        num_queries=head.get("num_queries", 100),
        encoder_layers=head.get("encoder_layers", 6),
        encoder_feedforward_dim=head.get("encoder_width", 1024),
        decoder_layers=head.get("decoder_layers", 9) + 1,
        dim_feedforward=head.get("decoder_width", 2048),
    )


def loaded(ours: nn.Module, reference: nn.Module) -> tuple[nn.Module, nn.Module]:
    load_mask2former(ours, randomise(reference))
    return ours, reference


def said(reference: nn.Module, image: Tensor) -> list[Queries]:
    """What theirs says of a normalised image, first layer first."""
    outputs = reference(image)
    last = {"class_queries_logits": outputs.class_queries_logits,
            "masks_queries_logits": outputs.masks_queries_logits}  # fmt: skip
    return [
        {"class_logits": one["class_queries_logits"], "mask_logits": one["masks_queries_logits"]}
        for one in (*outputs.auxiliary_logits, last)
    ]


@torch.no_grad()
def assert_same_queries(ours: nn.Module, reference: nn.Module, *sizes: tuple[int, int]) -> None:
    for size in sizes:
        image = random_image(*size, number=2)
        normalised = ours.backbone.normalize(image)
        expected = said(reference, padded(normalised, 32))
        masks = over_image(expected[-1]["mask_logits"], image, 32)
        assert_same(ours.queries(image), {**expected[-1], "mask_logits": masks}, 1e-4)
        if all(length % 32 == 0 for length in size):
            ours.train()
            ours.backbone.eval()  # its batch norms would take the batch's statistics
            found = ours(image)
            ours.eval()
            every = [*found["auxiliary"], found]
            assert len(every) == len(expected)
            for one, other in zip(every, expected, strict=True):
                assert_same(one, other, 1e-4)


@pytest.mark.parametrize("backbone", SMALL)
def test_every_layer_has_the_logits_of_transformers(backbone):
    """Also of images that are padded, for which the queries' masks are cut."""
    assert_same_queries(*small_pair(backbone), (64, 96), (75, 101), (33, 40))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet50", "swin_tiny"])
def test_full_size_has_the_logits_of_transformers(backbone):
    """In float64: in float32 a mask's logit is now and then so near zero that rounding decides
    whether a query looks there, and all layers behind differ."""
    if backbone == "resnet50":
        config, chosen = ResNetConfig(out_features=STAGES), "resnet50_fpn"
    else:
        config, chosen = SwinConfig(out_features=STAGES), backbone
    ours, reference = loaded(built(f"architecture/backbone={chosen}"), theirs(config))
    assert_same_queries(ours.double(), reference.double(), (224, 256), (261, 187))


SWIN = "architecture/backbone=swin_tiny"
COUNTS = [  # transformers', whose Swins count a norm more, which nothing uses
    (44_041_367, []),
    (63_033_495, ["architecture.backbone.name=resnet101.tv_in1k"]),
    (47_439_633, [SWIN]),
    (68_757_537, [SWIN, "architecture.backbone.name=swin_small_patch4_window7_224"]),
    (106_922_191, [SWIN, "architecture.backbone.name=swin_base_patch4_window12_384"]),
    (215_539_979, [SWIN, "architecture.backbone.name=swin_large_patch4_window12_384",
                   "architecture.num_queries=200"]),
]  # fmt: skip


@pytest.mark.parametrize(("expected", "overrides"), COUNTS)
def test_parameters(expected, overrides):
    """With 150 classes."""
    with torch.device("meta"):
        ours = built(*overrides)
    assert sum(parameter.numel() for parameter in ours.parameters()) == expected


def bilinear(cells: Tensor, x: float, y: float) -> Tensor:
    """(rows, columns, D) at x y, in cells from the corner; zero outside."""
    rows, columns, width = cells.shape
    total = torch.zeros(width)
    for row in range(rows):
        for column in range(columns):
            near = (1 - abs(x - 0.5 - column)) * (1 - abs(y - 0.5 - row))
            if abs(x - 0.5 - column) < 1 and abs(y - 0.5 - row) < 1:
                total += near * cells[row, column]
    return total


def test_deformable_attention_is_that_of_a_loop():
    sizes, heads, channels = [(1, 2), (2, 3), (4, 5)], 2, 8
    torch.manual_seed(0)
    attention = DeformableAttention(channels, heads, levels=3)
    for parameter in attention.parameters():
        nn.init.normal_(parameter)
    length = sum(rows * columns for rows, columns in sizes)
    queries, tokens = torch.randn(2, 1, length, channels).unbind()
    places = centres(sizes, torch.device("cpu"))
    with torch.no_grad():
        found = attention(queries, tokens, places, sizes)[0]
        offsets = attention.offsets(queries)[0].view(length, heads, 3, POINTS, 2)
        weights = attention.weights(queries)[0].view(length, heads, -1).softmax(2)
        values = attention.value(tokens)[0].view(length, heads, -1)
        cells = values.split([rows * columns for rows, columns in sizes])
        for token in range(length):
            summed = torch.zeros(heads, channels // heads)
            for head in range(heads):
                for level, (rows, columns) in enumerate(sizes):
                    own = cells[level][:, head].view(rows, columns, -1)
                    for point in range(POINTS):
                        x = places[token, 0] * columns + offsets[token, head, level, point, 0]
                        y = places[token, 1] * rows + offsets[token, head, level, point, 1]
                        weight = weights[token, head, level * POINTS + point]
                        summed[head] += weight * bilinear(own, float(x), float(y))
            expected = attention.output(summed.flatten())
            torch.testing.assert_close(found[token], expected, atol=1e-5, rtol=1e-4)


def test_heads_look_in_directions_of_their_own_at_first():
    """Of eight heads one to the right, at 1, 2, 3 and 4 cells, whatever the query is."""
    attention = DeformableAttention(16, heads=8, levels=3)
    offsets = attention.offsets(torch.randn(1, 16)).view(8, 3, POINTS, 2)
    expected = torch.tensor([[1.0, 0], [2, 0], [3, 0], [4, 0]])
    torch.testing.assert_close(offsets[0], expected.expand(3, -1, -1), atol=1e-6, rtol=0)
    assert len({tuple(direction) for direction in offsets[:, 0, 0].tolist()}) == 8


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("architecture.backbone.output_stride=16", "strides 4, 8, 16 and 32"),
        ("architecture.heads=7", "architecture.heads=7"),
    ],
)
def test_parts_that_do_not_fit(override, message):
    with pytest.raises(UserError, match=message):
        built(override)
