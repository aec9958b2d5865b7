"""Strip by strip gives the loss and the gradients of the plain form, in little memory."""

import subprocess
import sys

import pytest
import torch
from conftest import composed

from segtrain.assembly import make
from segtrain.contracts import resize
from segtrain.loss import segmentation, strips
from segtrain.loss.strips import resized_rows

SIZES = [((5, 7), (33, 50)), ((9, 9), (65, 65)), ((1, 1), (8, 3)), ((12, 10), (12, 10)),
         ((12, 10), (12, 40)), ((20, 3), (7, 9))]  # fmt: skip


@pytest.mark.parametrize(("small", "size"), SIZES)
@pytest.mark.parametrize("align_corners", [False, True])
def test_rows_are_those_of_the_whole(small, size, align_corners):
    torch.manual_seed(0)
    scores = torch.randn(2, 3, *small)
    whole = resize(scores, size, align_corners)
    for start, stop in ((0, 1), (2, size[0]), (size[0] - 1, size[0])):
        rows = resized_rows(scores, size, align_corners, start, stop)
        torch.testing.assert_close(rows, whole[:, :, start:stop], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["cross_entropy", "ohem"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("align_corners", [False, True])
def test_loss_and_gradients_are_those_of_the_plain_form(name, weighted, align_corners, monkeypatch):
    monkeypatch.setitem(strips.STRIP_BYTES, "cpu", 4 * 5 * 50 * 7)  # seven rows
    torch.manual_seed(0)
    node = composed(f"loss={name}")["loss"]
    node["pixel"]["class_weights"] = [0.5, 2.0, 1.0, 3.0, 0.1] if weighted else None
    if name == "cross_entropy":
        node["pixel"]["label_smoothing"] = 0.1
    target = torch.randint(0, 5, (3, 33, 50), dtype=torch.uint8)
    target[0, :9], target[1] = 255, 255
    outputs = {"logits": torch.randn(3, 5, 5, 7), "aux": torch.randn(3, 5, 3, 4)}
    results = []
    for form in ("whole", "strips"):
        leaves = {key: value.clone().requires_grad_() for key, value in outputs.items()}
        loss = make(node | {"form": form}, ignore_index=255)
        terms = loss({**leaves, "align_corners": align_corners}, target)
        (3 * sum(terms.values())).backward()
        results.append((terms, [leaf.grad for leaf in leaves.values()]))
    (terms, gradients), (other_terms, other_gradients) = results
    for key, term in terms.items():
        assert other_terms[key].item() == pytest.approx(term.item(), abs=1e-5)
    for one, other in zip(gradients, other_gradients, strict=True):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-4)


def test_void_alone_is_zero_with_zero_gradient():
    loss = make(composed("loss=ohem")["loss"] | {"form": "strips"}, ignore_index=255)
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    terms = loss({"logits": logits, "align_corners": False}, torch.full((1, 8, 8), 255))
    terms["main"].backward()
    assert terms["main"] == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("form", ["whole", "strips", "fused"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("void", ["all", "one image", "nothing"])
def test_scaled_gradients_of_narrow_scores_are_finite(form, dtype, void):
    """As float16 training multiplies the loss; a sum over many pixels is more than it holds."""
    torch.manual_seed(0)
    side = 16 if form == "fused" else 300  # Triton's interpreter takes minutes for a large one
    target = torch.randint(0, 3, (2, side, side), dtype=torch.uint8)
    target[: {"all": 2, "one image": 1, "nothing": 0}[void]] = 255
    scores = torch.randn(2, 3, 4, 4)
    gradients = []
    for kind, other in ((dtype, form), (torch.float32, "whole")):
        loss = make(composed("loss=cross_entropy")["loss"] | {"form": other}, ignore_index=255)
        logits = scores.to(dtype).to(kind).clone().requires_grad_()
        term = loss({"logits": logits, "align_corners": False}, target)["main"]
        (65536.0 * term).backward()
        gradients.append(logits.grad.float() / 65536)
    assert gradients[0].isfinite().all()
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-3}[dtype]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=tolerance, atol=tolerance / 100)


def test_large_scores_go_by_strips_unasked(monkeypatch):
    seen = []

    def apply(logits, target, *others):
        seen.append(target.shape[1])
        return logits.sum(), torch.ones(())

    monkeypatch.setattr(segmentation.SumOverStrips, "apply", apply)
    loss = make(composed()["loss"], ignore_index=255)
    for side in (16, 2100):
        logits = torch.randn(1, 4, 4, 4, requires_grad=True)
        target = torch.zeros(1, side, side, dtype=torch.uint8)
        loss({"logits": logits, "align_corners": False}, target)
    assert seen == [2100]


def test_memory():
    """Peak memory of 4 x 60 x 384 x 384 scores: a fraction of one full-resolution copy."""
    code = """
import resource, sys, torch
from segtrain.loss.pixel import CrossEntropy
from segtrain.loss.segmentation import SegmentationLoss
make = lambda form: SegmentationLoss(lambda ignore_index: CrossEntropy(None, 0.0, ignore_index),
    None, 0.4, 1.0, 0.2, "logits", True, 255, form)
def step(side, form):
    logits = torch.randn(4, 60, side // 8, side // 8, requires_grad=True)
    target = torch.zeros(4, side, side, dtype=torch.uint8)
    make(form)({"logits": logits, "align_corners": False}, target)["main"].backward()
step(64, "strips"); step(64, "whole")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step(384, sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    peaks = [
        int(subprocess.run([sys.executable, "-c", code, form], check=True,
                           capture_output=True, text=True).stdout)
        for form in ("whole", "strips")
    ]  # fmt: skip
    assert peaks[1] <= peaks[0] / 3
