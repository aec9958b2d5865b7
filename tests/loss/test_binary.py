"""Losses of classes that may overlap, against their papers' equations in NumPy."""

import numpy as np
import pytest
import torch

from segtrain.loss.binary import BinaryCrossEntropy, BinaryDice, BinaryFocal, Tversky
from segtrain.loss.multilabel import MultilabelLoss
from segtrain.planes import pack

CLASSES = 3


@pytest.fixture
def example():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (2, CLASSES, 5, 6))
    truth = rng.random((2, CLASSES, 5, 6)) < 0.4
    valid = rng.random((2, 5, 6)) < 0.8
    return logits, truth, valid


def tensors(example):
    logits, truth, valid = example
    return torch.tensor(logits).float(), torch.tensor(truth).float(), torch.tensor(valid)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_cross_entropy(example):
    logits, truth, _ = example
    p, weights = sigmoid(logits), np.array([1.0, 2.0, 5.0])
    expected = np.where(truth, -weights[:, None, None] * np.log(p), -np.log(1 - p))
    found = BinaryCrossEntropy(weights.tolist())(*tensors(example)[:2])
    assert found.numpy() == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("alpha", [0.25, None])
def test_focal(example, alpha):
    logits, truth, _ = example
    p = sigmoid(logits)
    p_t = np.where(truth, p, 1 - p)
    alpha_t = 1 if alpha is None else np.where(truth, alpha, 1 - alpha)
    expected = -alpha_t * (1 - p_t) ** 2 * np.log(p_t)
    found = BinaryFocal(alpha, 2.0)(*tensors(example)[:2])
    assert found.numpy() == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_focal_with_gamma_of_a_half_has_finite_gradients_where_all_is_sure():
    logits = torch.tensor([60.0, -60.0], requires_grad=True)
    BinaryFocal(None, 0.5)(logits, torch.tensor([1.0, 0.0])).sum().backward()
    assert logits.grad.isfinite().all()


def test_dice(example):
    logits, truth, valid = example
    shares = []
    for k in range(CLASSES):
        p, g = sigmoid(logits[:, k])[valid], truth[:, k][valid]
        shares.append((2 * (p * g).sum() + 1) / ((p**2).sum() + (g**2).sum() + 1))
    assert float(BinaryDice(1.0)(*tensors(example))) == pytest.approx(1 - np.mean(shares), rel=1e-5)


def test_tversky(example):
    logits, truth, valid = example
    shares = []
    for k in range(CLASSES):
        p, g = sigmoid(logits[:, k])[valid], truth[:, k][valid]
        hit, false, missed = (p * g).sum(), (p * ~g).sum(), ((1 - p) * g).sum()
        shares.append(hit / (hit + 0.3 * false + 0.7 * missed))
    found = float(Tversky(0.3, 0.7, 0.0)(*tensors(example)))
    assert found == pytest.approx(1 - np.mean(shares), rel=1e-5)


def loss_of(logits, truth, valid):
    target = np.stack([pack(*each) for each in zip(truth, ~valid, strict=True)])
    loss = MultilabelLoss(BinaryCrossEntropy(None), BinaryDice(1.0), 0.4, 1.0, 0.2)
    outputs = {"logits": torch.tensor(logits).float(), "align_corners": False}
    return loss, outputs, torch.from_numpy(target)


def test_void_pixels_count_nowhere(example):
    logits, truth, valid = example
    loss, outputs, target = loss_of(logits, truth, valid)
    p = sigmoid(logits)
    entropy = -np.where(truth, np.log(p), np.log(1 - p))
    terms = loss(outputs, target)
    assert float(terms["main"]) == pytest.approx(entropy.transpose(0, 2, 3, 1)[valid].mean())
    changed = np.where(valid[:, None], logits, 50.0)
    again = loss({**outputs, "logits": torch.tensor(changed).float()}, target)
    assert {k: float(v) for k, v in again.items()} == pytest.approx(
        {k: float(v) for k, v in terms.items()}
    )


def test_a_batch_that_is_all_void_has_no_loss(example):
    logits, truth, valid = example
    loss, outputs, target = loss_of(logits, truth, np.zeros_like(valid))
    assert [float(term) for term in loss(outputs, target).values()] == [0, 0]


def test_parts_of_a_batch_weigh_as_the_whole_does(example):
    logits, truth, valid = example
    valid[0, :4] = False
    loss, outputs, target = loss_of(logits, truth, valid)
    whole = float(loss(outputs, target)["main"])
    weights = [loss.weights(None, target[n : n + 1])["all"] for n in range(2)]
    mean = {"all": torch.stack(weights).mean(0)}
    parts = [
        float(loss({**outputs, "logits": outputs["logits"][n : n + 1]}, target[n : n + 1], mean)
              ["main"])
        for n in range(2)
    ]  # fmt: skip
    assert np.mean(parts) == pytest.approx(whole)
