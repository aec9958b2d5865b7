import numpy as np
import pytest
import torch

from segtrain.metric.confusion import confusion_matrix
from segtrain.metric.per_image import PerImage


def slow_scores(pairs: list, classes: int) -> tuple[float, float, float]:
    by_class = {k: [] for k in range(classes)}
    by_image = []
    for prediction, target in pairs:
        valid, ious = target != 255, []
        for k in set(target[valid].tolist()):
            hits = (valid & (prediction == k) & (target == k)).sum()
            ious.append(hits / (valid & ((prediction == k) | (target == k))).sum())
            by_class[k].append(ious[-1])
        if ious:
            by_image.append(np.mean(ious))
    worst = sorted(by_image)[: max(1, len(by_image) // 10)]
    of_classes = [np.mean(values) for values in by_class.values() if values]
    return float(np.mean(by_image)), float(np.mean(of_classes)), float(np.mean(worst))


def scored(pairs: list, classes: int) -> dict:
    metric = PerImage(classes)
    for prediction, target in pairs:
        metric.update(confusion_matrix(*map(torch.from_numpy, (prediction, target)), classes, 255))
    return metric.compute()


@pytest.mark.parametrize("count", [1, 7, 25])
def test_equals_slow_reference(count):
    rng = np.random.default_rng(count)
    pairs = []
    for _ in range(count):
        target = rng.choice(rng.choice(8, 3), (9, 11)).astype(np.uint8)
        prediction = np.where(rng.random(target.shape) < rng.random(), rng.integers(0, 8), target)
        target[rng.random(target.shape) < 0.2] = 255
        pairs.append((prediction, target))
    pairs.append((np.zeros((2, 2), int), np.full((2, 2), 255, np.uint8)))  # nothing to measure
    found = scored(pairs, 9)
    assert tuple(found.values()) == pytest.approx(slow_scores(pairs, 9), abs=1e-9)


def test_by_hand():
    """Classes that are predicted alone are none of the image's."""
    first = np.array([[2, 0, 0, 0]]), np.array([[0, 0, 0, 0]], np.uint8)
    second = np.array([[0, 0, 1, 0]]), np.array([[0, 0, 1, 1]], np.uint8)
    found = scored([first, second], 3)
    assert found["miou_i"] == pytest.approx((3 / 4 + (2 / 3 + 1 / 2) / 2) / 2)
    assert found["miou_c"] == pytest.approx(((3 / 4 + 2 / 3) / 2 + 1 / 2) / 2)
    assert found["miou_i_worst"] == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_nothing_to_measure_and_anew():
    metric = PerImage(3)
    metric.update(torch.eye(3, dtype=torch.int64))
    assert set(metric.compute().values()) == {1.0}
    metric.reset()
    metric.update(torch.zeros(3, 3, dtype=torch.int64))
    assert set(metric.compute().values()) == {None}
