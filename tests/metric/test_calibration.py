import numpy as np
import pytest
import torch

from segtrain.metric.calibration import CalibrationError, calibration_counts, confidence


def slow_error(probabilities: np.ndarray, target: np.ndarray) -> float:
    """Pixel by pixel, probabilities (K, P) in double precision."""
    bins = [[] for _ in range(15)]
    for column, truth in zip(probabilities.T, target, strict=True):
        if truth != 255:
            place = min(m for m in range(15) if column.max() <= (m + 1) / 15)
            bins[place].append((column.max(), column.argmax() == truth))
    number = sum(map(len, bins))
    return sum(
        len(found) / number * abs(np.mean([c for c, _ in found]) - np.mean([r for _, r in found]))
        for found in bins if found
    )  # fmt: skip


def error_of(scores: torch.Tensor, target: torch.Tensor, probabilities: bool) -> float | None:
    metric = CalibrationError()
    sure = confidence(scores, probabilities)
    metric.update(calibration_counts(sure, scores.argmax(0), target, 255))
    return metric.compute()


@pytest.mark.parametrize("classes", [2, 19])
@pytest.mark.parametrize("spread", [0.1, 3.0, 40.0])
def test_equals_slow_reference(classes, spread):
    rng = np.random.default_rng(classes)
    scores = rng.normal(0, spread, (classes, 31, 29)).astype(np.float32)
    target = rng.integers(0, classes, (31, 29)).astype(np.uint8)
    target[rng.random(target.shape) < 0.2] = 255
    shifted = scores.astype(float) - scores.max(0)
    softmax = np.exp(shifted) / np.exp(shifted).sum(0)
    expected = slow_error(softmax.reshape(classes, -1), target.ravel())
    given = torch.from_numpy(scores), torch.from_numpy(target)
    assert error_of(*given, probabilities=False) == pytest.approx(expected, abs=1e-6)
    single = softmax.astype(np.float32)
    expected = slow_error(single.astype(float).reshape(classes, -1), target.ravel())
    given = torch.from_numpy(single), torch.from_numpy(target)
    assert error_of(*given, probabilities=True) == pytest.approx(expected, abs=1e-8)


def test_by_hand():
    probabilities = torch.tensor([[0.9, 0.9, 0.6, 0.6], [0.1, 0.1, 0.4, 0.4]]).view(2, 2, 2)
    target = torch.tensor([[0, 1], [0, 0]], dtype=torch.uint8)
    # at 0.9 one of two is right, at 0.6 both are
    assert error_of(probabilities, target, True) == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    assert error_of(probabilities, torch.full_like(target, 255), True) is None


def test_ends_of_bins():
    """A confidence on an edge is in the lower bin; 1, also by a rounding above, in the last."""
    sure = confidence(torch.tensor([0.2, 0.4, 1.0, 1.0000001]).view(1, 1, 4), True)
    zeros = torch.zeros(1, 4, dtype=torch.uint8)
    pixels = calibration_counts(sure.double().round(decimals=7), zeros, zeros, 255)[0]
    assert pixels.nonzero().flatten().tolist() == [2, 5, 14]
    assert pixels[14] == 2


def test_the_order_of_images_changes_no_digit():
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(4, 20, 20, generator=generator) for _ in range(7)]
    target = torch.zeros(20, 20, dtype=torch.uint8)
    found = []
    for order in (range(7), (3, 6, 1, 0, 2, 5, 4)):
        metric = CalibrationError()
        for index in order:
            sure = confidence(images[index], False)
            counts = calibration_counts(sure, images[index].argmax(0), target, 255)
            metric.update(counts)
        found.append(metric.compute())
    assert found[0] == found[1]
