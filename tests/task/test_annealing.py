"""Masks of EoMT's attention go in the course of a training, by its step alone."""

import numpy as np
import pytest
import torch
from conftest import composed, small_network

from segtrain.assembly import build_model

TINY = small_network("architecture=eomt")


def network(blocks: int, *overrides: str):
    chosen = ["architecture=eomt", *TINY, f"architecture.query_blocks={blocks}", *overrides]
    return build_model(composed(*chosen), 3)


# Of the authors' configurations of COCO: 12 epochs of 7391 steps.
STEPS = 12 * 7391
PUBLISHED = {
    3: ([14782, 36955, 59128], [29564, 51737, 73910]),
    4: ([14782, 29564, 44346, 59128], [29564, 44346, 59128, 73910]),
    5: ([14782, 25869, 36955, 48042, 59128], [29564, 40651, 51737, 62824, 73910]),
}


@pytest.mark.parametrize("blocks", PUBLISHED)
def test_masks_go_when_the_authors_let_them_go(blocks):
    model = network(blocks)
    for step in range(0, STEPS, STEPS // 37):
        model.anneal(step / STEPS)
        over = [np.clip((step - start) / (end - start), 0, 1)
                for start, end in zip(*PUBLISHED[blocks], strict=True)]  # fmt: skip
        expected = (1 - np.array(over)) ** 0.9
        np.testing.assert_allclose(model.mask_probability, expected, atol=3e-3)


def test_masks_that_stay():
    model = network(2, "architecture.annealing=null")
    model.anneal(0.9)
    assert torch.equal(model.mask_probability, torch.ones(2))


def test_in_the_end_training_sees_what_evaluation_sees():
    model = network(2)
    model.anneal(1.0)
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        trained = model.train()(image)["class_logits"]
        evaluated = model.eval().queries(image)["class_logits"]
        torch.testing.assert_close(trained, evaluated)
        model.anneal(0.0)
        masked = model.train()(image)["class_logits"]
    assert (masked - evaluated).abs().max() > 1e-4
