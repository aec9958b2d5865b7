"""EoMT: what every query says before every block that it is in, as independent code says it on
random weights; its masks of attention; published numbers of parameters."""

import pytest
import torch
from conftest import composed
from mask_classifiers import assert_same, eomt, load_eomt, over_image, padded, random_image
from randomised import randomise
from torch import Tensor, nn

from segtrain.assembly import build_model
from segtrain.contracts import Queries
from segtrain.errors import UserError

SMALL = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3, "num_blocks": 2,
         "num_queries": 7}  # fmt: skip
BODIES = {  # name, and of transformers what else there is to say
    "vit_small_patch14_reg4_dinov2": {},
    "vit_small_patch16_dinov3": {"dinov3": True, "intermediate_size": 192, "layer_norm_eps": 1e-5},
}


def built(*overrides: str, classes: int = 150) -> nn.Module:
    chosen = composed("architecture=eomt", "architecture.backbone.weights=none", *overrides)
    return build_model(chosen, classes).eval()


def small_pair(name: str, side: int) -> tuple[nn.Module, nn.Module]:
    """Ours and that of transformers, which is made for one size, with the same random weights."""
    ours = built(
        f"architecture.backbone.name={name}",
        "+architecture.backbone.timm_arguments={embed_dim: 48, depth: 4, num_heads: 3"
        + (f", img_size: {side}}}" if "dinov2" in name else "}"),
        "architecture.num_queries=7",
        "architecture.query_blocks=2",
    )
    reference = eomt(**SMALL, **BODIES[name], image_size=side)
    return ours, reference


def said(reference: nn.Module, image: Tensor) -> list[Queries]:
    """What theirs says of a normalised image before each block with queries, and at the end."""
    found = []
    predict = reference.predict

    def watched(logits: Tensor) -> tuple[Tensor, Tensor]:
        masks, classes = predict(logits)
        found.append({"class_logits": classes, "mask_logits": masks})
        return masks, classes

    reference.predict = watched
    with torch.no_grad():
        reference(image)
    del reference.predict
    return found


@pytest.mark.parametrize("name", BODIES)
def test_every_block_has_the_logits_of_transformers(name):
    """In training, where all attention is masked."""
    ours, reference = small_pair(name, 64)
    load_eomt(ours, randomise(reference))
    image = random_image(64, 64, number=2)
    expected = said(reference, ours.backbone.normalize(image))
    assert len(expected) == 3
    with torch.no_grad():
        found = ours.train()(image)
    for one, other in zip([*found["auxiliary"], found], expected, strict=True):
        assert_same(one, other, 1e-5)


@pytest.mark.parametrize("name", BODIES)
def test_evaluation_has_the_logits_of_transformers(name):
    """Without masks of attention, of an image that is padded to whole patches too."""
    ours, reference = small_pair(name, 64)
    load_eomt(ours, randomise(reference))
    reference.attn_mask_probs.zero_()
    for size in ((64, 64), (61, 50)):
        image = random_image(*size, number=2)
        (expected,) = said(reference, padded(ours.backbone.normalize(image), 16))
        masks = over_image(expected["mask_logits"], image, 16)
        with torch.no_grad():
            found = ours.queries(image)
        assert_same(found, {**expected, "mask_logits": masks}, 1e-5)


@torch.no_grad()
def test_annealed_attention_is_that_of_evaluation():
    ours = randomise(small_pair("vit_small_patch14_reg4_dinov2", 64)[0])
    image = random_image(64, 64, number=2)
    plain = ours.layers(image)[-1]
    masked = ours.train()(image)
    assert (masked["class_logits"] - plain["class_logits"]).abs().max() > 1e-3
    ours.mask_probability.zero_()
    assert_same(ours(image), plain, 1e-5)


@torch.no_grad()
def test_some_queries_look_at_everything():
    """As many as the probability says, each time others; a query alone is masked or is not."""
    ours = built("architecture.backbone.name=test_vit", "architecture.num_queries=200",
                 "architecture.query_blocks=1").train()  # fmt: skip
    image = random_image(64, 64)
    said = []
    for probability in (1.0, 0.0, 0.25, 0.25):
        ours.mask_probability.fill_(probability)
        said.append(ours(image)["class_logits"][0])
    masked, free, *some = said
    differ = (masked - free).abs().amax(1) > 1e-4
    assert differ.sum() > 50
    chosen = []
    for found in some:
        is_masked = (found - masked).abs().amax(1) <= 1e-5
        assert (is_masked | ((found - free).abs().amax(1) <= 1e-5)).all()
        chosen.append(is_masked[differ])
        assert 0.1 < chosen[-1].float().mean() < 0.4
    assert (chosen[0] != chosen[1]).any()


def test_blocks_that_turn_by_places_of_their_own():
    """Which are one tensor a block, of the patches alone."""
    ours = built(
        "architecture.backbone.name=vit_small_patch16_rope_mixed_224",
        "+architecture.backbone.timm_arguments={embed_dim: 48, depth: 3, num_heads: 3}",
        "architecture.num_queries=7",
        "architecture.query_blocks=2",
    )
    randomise(ours)
    image = random_image(61, 50)
    with torch.no_grad():
        before = ours(image)["logits"]
        ours.backbone.body.rope.freqs[:, -1] += 1  # of the last block
        assert (ours(image)["logits"] - before).abs().max() > 1e-5


@pytest.mark.parametrize(
    ("name", "blocks", "expected"),
    [
        ("vit_small_patch14_reg4_dinov2", 3, 23_722_903),
        ("vit_base_patch14_reg4_dinov2", 3, 93_157_015),
        ("vit_large_patch14_reg4_dinov2", 4, 316_020_887),
        # transformers counts biases of queries and values more, which are zero in all weights.
        ("vit_small_patch16_dinov3", 3, 23_325_079 - 12 * 2 * 384),
        ("vit_base_patch16_dinov3", 3, 92_361_367 - 12 * 2 * 768),
        ("vit_large_patch16_dinov3", 4, 314_947_735 - 24 * 2 * 1024),
    ],
)
def test_parameters(name, blocks, expected):
    """With 100 queries and 150 classes, position embeddings for images of 512 pixels."""
    size = [] if "dinov2" in name else ["architecture.backbone.timm_arguments={}"]
    with torch.device("meta"):
        ours = built(f"architecture.backbone.name={name}", "architecture.num_queries=100",
                     f"architecture.query_blocks={blocks}", *size)  # fmt: skip
    assert sum(parameter.numel() for parameter in ours.parameters()) == expected


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["architecture/backbone=timm"], "architecture/backbone=vit"),
        (["architecture.backbone.name=test_vit", "architecture.query_blocks=7"], "has 6 blocks"),
        (["architecture.backbone.name=test_vit", "architecture.backbone.layers=2",
          "architecture.query_blocks=1"], "layers=1"),
        (["architecture.backbone.name=test_vit", "architecture.backbone.patch_size=14",
          "architecture.backbone.timm_arguments={}"], "patch_size=16"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit(overrides, message):
    with pytest.raises(UserError, match=message):
        built(*overrides)
