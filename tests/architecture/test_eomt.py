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

SMALL = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3, "num_blocks": 2,
         "num_queries": 7}  # fmt: skip
BODIES = {  # name, and of transformers what else there is to say
    "vit_small_patch14_reg4_dinov2": {},
    "vit_small_patch16_dinov3": {"dinov3": True, "intermediate_size": 192, "layer_norm_eps": 1e-5},
}


def built(*overrides: str, classes: int = 150) -> nn.Module:
    chosen = composed("architecture=eomt", "architecture.backbone.weights=none", *overrides)
    return build_model(chosen, classes).eval()


def small_pair(name: str, height: int, width: int) -> tuple[nn.Module, nn.Module]:
    """Ours and that of transformers, which is made for one size, with the same random weights."""
    ours = built(
        f"architecture.backbone.name={name}",
        "~architecture.backbone.timm_arguments",
        "+architecture.backbone.timm_arguments={embed_dim: 48, depth: 4, num_heads: 3"
        + (f", img_size: [{height},{width}]}}" if "dinov2" in name else "}"),
        "architecture.num_queries=7",
        "architecture.query_blocks=2",
    )
    reference = eomt(**SMALL, **BODIES[name], image_size=height)
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
    ours, reference = small_pair(name, 64, 64)
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
    ours, reference = small_pair(name, 64, 64)
    load_eomt(ours, randomise(reference))
    reference.attn_mask_probs.zero_()
    for size in ((64, 64), (61, 50)):
        image = random_image(*size, number=2)
        (expected,) = said(reference, padded(ours.backbone.normalize(image), 16))
        masks = over_image(expected["mask_logits"], image, 16)
        with torch.no_grad():
            found = ours.queries(image)
        assert_same(found, {**expected, "mask_logits": masks}, 1e-5)
