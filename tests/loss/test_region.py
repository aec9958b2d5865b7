import numpy as np
import pytest
import torch

from segtrain.loss.region import Dice, LovaszSoftmax, jaccard_weights

LOSSES = [
    Dice(1.0, 255),
    Dice(0.0, 255),
    LovaszSoftmax(per_image=False, ignore_index=255),
    LovaszSoftmax(per_image=True, ignore_index=255),
]


def scene():
    """Two images, five classes of which the last occurs nowhere and class 3 in one image."""
    torch.manual_seed(0)
    logits = 2 * torch.randn(2, 5, 3, 4)
    target = torch.randint(0, 3, (2, 3, 4), dtype=torch.uint8)
    target[1, 2] = 3
    target[0, 0] = 255
    target[1, 0, :2] = 255
    return logits, target


def valid_pixels(logits, target):
    """-> probabilities (P, K), labels (P,) of the valid pixels, NumPy float64."""
    probabilities = logits.double().softmax(1).permute(0, 2, 3, 1).numpy()
    labels = target.numpy()
    return probabilities[labels != 255], labels[labels != 255]


def slow_dice(logits, target, smooth):
    probabilities, labels = valid_pixels(logits, target)
    losses = []
    for k in sorted(set(labels.tolist())):
        above = below = smooth
        for p, label in zip(probabilities[:, k], labels, strict=True):
            above += 2 * p * (label == k)
            below += p**2 + (label == k)
        losses.append(1 - above / below)
    return np.mean(losses)


def slow_lovasz(logits, target):
    """Integral over t in (0, 1) of the Jaccard loss of the pixels whose error is at least t."""
    probabilities, labels = valid_pixels(logits, target)
    losses = []
    for k in sorted(set(labels.tolist())):
        truth = labels == k
        errors = np.abs(truth - probabilities[:, k])
        levels = np.unique(np.append(errors, 0))
        loss = 0.0
        for low, high in zip(levels[:-1], levels[1:], strict=True):
            wrong = errors >= high
            jaccard = (truth & ~wrong).sum() / (truth | wrong).sum()
            loss += (high - low) * (1 - jaccard)
        losses.append(loss)
    return np.mean(losses)


def mean_iou_loss(prediction, target):
    """1 - IoU, averaged over the classes in the target."""
    valid = target != 255
    ious = []
    for k in target[valid].unique():
        a, b = (prediction == k) & valid, target == k
        ious.append(((a & b).sum() / (a | b).sum()).item())
    return 1 - np.mean(ious)


def certain(prediction):
    """Logits whose softmax is exactly 0 and 1."""
    hot = torch.nn.functional.one_hot(prediction.long().clamp(max=4), 5)
    return 1e4 * hot.permute(0, 3, 1, 2).float()


@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_dice_equals_slow_reference(smooth):
    logits, target = scene()
    loss = Dice(smooth, 255)(logits, target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(slow_dice(logits, target, smooth), abs=1e-6)


def test_lovasz_equals_slow_reference():
    logits, target = scene()
    whole = LovaszSoftmax(per_image=False, ignore_index=255)(logits, target)
    assert whole.dtype == torch.float32
    assert whole.item() == pytest.approx(slow_lovasz(logits, target), abs=1e-6)
    apart = LovaszSoftmax(per_image=True, ignore_index=255)(logits, target)
    single = [slow_lovasz(logits[n : n + 1], target[n : n + 1]) for n in range(2)]
    assert apart.item() == pytest.approx(np.mean(single), abs=1e-6)


@pytest.mark.parametrize("per_image", [False, True])
def test_lovasz_of_certain_predictions_is_jaccard_loss(per_image):
    _, target = scene()
    prediction = torch.randint(0, 5, target.shape)
    loss = LovaszSoftmax(per_image, 255)(certain(prediction), target)
    parts = [slice(0, 1), slice(1, 2)] if per_image else [slice(None)]
    expected = np.mean([mean_iou_loss(prediction[part], target[part]) for part in parts])
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_jaccard_weights_add_up_with_many_pixels():
    """Their sum is the loss where all is wrong, 1; each is exact though about 1e-6."""
    torch.manual_seed(0)
    errors, member = torch.rand(1_000_000), (torch.rand(1_000_000) < 0.3).float()
    weights = jaccard_weights(errors, member)
    assert weights.sum().item() == pytest.approx(1, abs=1e-5)
    double = jaccard_weights(errors.double(), member.double()).float()
    torch.testing.assert_close(weights, double, rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_is_that_of_finite_differences(loss):
    logits, target = scene()
    logits = logits.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits)


@pytest.mark.parametrize("loss", LOSSES)
def test_perfect_prediction_is_zero(loss):
    _, target = scene()
    assert loss(certain(target), target).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_void_pixels_change_nothing(loss):
    logits, target = scene()
    alone = loss(logits, target)
    wide = torch.cat([logits, torch.randn(2, 5, 3, 4)], dim=3).requires_grad_()
    padded = torch.cat([target, torch.full_like(target, 255)], dim=2)
    changed = loss(wide, padded)
    torch.testing.assert_close(changed, alone)
    changed.backward()
    assert (wide.grad.transpose(0, 1)[:, padded == 255] == 0).all()
    assert (wide.grad.transpose(0, 1)[:, padded != 255] != 0).any()


@pytest.mark.parametrize("loss", LOSSES)
def test_void_image_changes_nothing(loss):
    logits, target = scene()
    more = torch.cat([logits, torch.randn(1, 5, 3, 4)])
    void = torch.cat([target, torch.full_like(target[:1], 255)])
    torch.testing.assert_close(loss(more, void), loss(logits, target))


@pytest.mark.parametrize("loss", LOSSES)
def test_all_void_is_zero_with_zero_gradient(loss):
    logits = torch.randn(2, 5, 3, 4, requires_grad=True)
    value = loss(logits, torch.full((2, 3, 4), 255))
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()
