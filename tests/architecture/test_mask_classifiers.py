"""Every mask classification network in conf/: what it returns, at any size, in training and after;
a new one is tested unasked."""

import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import architectures
from test_semantic import BACKENDS, CLASSES, pixels, small
from torch import Tensor, nn

from segtrain.architecture.mask_classification.classifier import MaskClassifier
from segtrain.benchmark.model import count_flops
from segtrain.contracts import Queries, QueryOutputs, resize

NAMES = architectures("mask_classification")
QUERIES = 7  # of small networks


def layers(outputs: QueryOutputs) -> list[Queries]:
    return [*outputs["auxiliary"], outputs]


def total(outputs: QueryOutputs) -> Tensor:
    """A loss of all that comes out."""
    values = (one[key] for one in layers(outputs) for key in ("class_logits", "mask_logits"))
    return sum(value.float().square().mean() for value in values)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("batch", "size"), [(2, (64, 64)), (1, (33, 47))])
def test_all_layers_learn(name, batch, size):
    """Batch 1 and odd sizes included."""
    model = small(name).train()
    outputs = model(pixels(batch, 3, *size))
    assert len(outputs["auxiliary"]) >= 2
    for one in layers(outputs):
        assert one["class_logits"].shape == (batch, QUERIES, CLASSES + 1)
        assert one["mask_logits"].shape[:2] == (batch, QUERIES)
        assert one["mask_logits"].shape == outputs["mask_logits"].shape
    total(outputs).backward()
    without = [
        n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]
    assert not without


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(64, 64), (61, 50)])
def test_scores_are_sums_over_queries(name, size):
    """Of a class's probability times the mask's, at every pixel of the image."""
    model = small(name).eval()
    image = pixels(2, 3, *size)
    with torch.no_grad():
        queries = model.queries(image)
        logits = model(image)["logits"]
    classes = queries["class_logits"].softmax(2)
    masks = resize(queries["mask_logits"], size, align_corners=False).sigmoid()
    expected = torch.zeros(2, CLASSES, *size)
    for query in range(QUERIES):
        for label in range(CLASSES):
            expected[:, label] += classes[:, query, label, None, None] * masks[:, query]
    torch.testing.assert_close(logits, expected)


class Ramp(MaskClassifier):
    """A query whose mask rises by one a pixel, from left to right and from top to bottom."""

    def __init__(self) -> None:
        super().__init__(nn.Identity())

    def layers(self, image: Tensor) -> list[Queries]:
        rows, columns = (4 * (-(-length // 16) * 4) for length in image.shape[2:])
        plane = torch.arange(rows)[:, None] + 1000 * torch.arange(columns)[None]
        masks = F.avg_pool2d(plane[None, None].float(), 4)
        return [{"class_logits": torch.zeros(1, 1, 2), "mask_logits": masks}] * 2


@pytest.mark.parametrize("size", [(32, 48), (37, 41)])
def test_masks_are_of_the_image_alone(size):
    """Whatever is padded, in evaluation and in training; the ramp is straight but at its ends."""
    image = torch.zeros(1, 3, *size)
    expected = torch.arange(size[0])[:, None] + 1000.0 * torch.arange(size[1])[None]
    inner = (slice(None), slice(None), slice(6, -6), slice(6, -6))
    network = Ramp()
    found = network.eval().queries(image)["mask_logits"]
    assert found.shape == (1, 1, *size)
    torch.testing.assert_close(found[inner], expected[None, None][inner], rtol=1e-5, atol=1e-2)
    for one in layers(network.train()(image)):
        found = resize(one["mask_logits"], size, align_corners=False)
        torch.testing.assert_close(found[inner], expected[None, None][inner], rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast_and_copy(name):
    """Forward and backward in bfloat16; evaluation close to float32."""
    model = copy.deepcopy(small(name))
    image = pixels(2, 3, 40, 40)
    with torch.autocast("cpu", torch.bfloat16):
        total(model.train()(image)).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        exact = model.eval()(image)["logits"]
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(image)["logits"]
    assert rough.dtype == torch.float32
    assert (exact - rough).abs().max() <= 0.05 * exact.abs().max()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_compiles_without_a_graph_break(name, backend):
    """As one graph; slow: the backward pass as one too, and with kernels generated for both."""
    model = small(name).train()
    image = pixels(2, 3, 64, 64)
    expected = model(image)
    torch.compiler.reset()
    found = torch.compile(model, backend=backend, fullgraph=True)(image)
    total(found).backward()
    for one, other in zip(layers(found), layers(expected), strict=True):
        for key in other:
            if key != "auxiliary":
                torch.testing.assert_close(one[key], other[key], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_operations_are_counted(name):
    """About four times as many of an image of four times the size."""
    model = small(name)
    few, many = (count_flops(model, pixels(1, 3, side, side)) for side in (64, 128))
    assert 2 * few < many < 8 * few
