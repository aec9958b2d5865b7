from pathlib import Path

import numpy as np
import pytest
import torch

from segtrain.dataset.camvid import camvid
from segtrain.dataset.labels import CAMVID
from segtrain.metric.boundary import boundary_iou, boundary_matrix, boundary_width, near_boundary

VOID = 255


def slow_boundary(mask: np.ndarray, width: int) -> np.ndarray:
    """A mask less its erosion by a 3x3 square, `width` times, with nothing around the image."""
    eroded = mask
    for _ in range(width):
        padded = np.pad(eroded, 1)
        rows, columns = (range(length) for length in mask.shape)
        eroded = np.stack([
            padded[y : y + len(rows), x : x + len(columns)] for y in range(3) for x in range(3)
        ]).all(0)  # fmt: skip
    return mask & ~eroded


def slow_counts(prediction: np.ndarray, target: np.ndarray, classes: int) -> np.ndarray:
    """(2, K) intersections and unions of the boundaries, class by class."""
    valid, width = target != VOID, max(1, int(round(0.02 * np.sqrt(sum(np.square(target.shape))))))
    pairs = [[slow_boundary((of == k) & valid, width) for of in (prediction, target)]
             for k in range(classes)]  # fmt: skip
    return np.array([[(a & b).sum(), (a | b).sum()] for a, b in pairs]).T


def blobs(rng, shape, classes):
    coarse = rng.integers(0, classes, (-(-shape[0] // 9), -(-shape[1] // 9)))
    return np.kron(coarse, np.ones((9, 9), int))[: shape[0], : shape[1]].astype(np.uint8)


@pytest.mark.parametrize("shape", [(40, 60), (61, 47), (3, 3), (2, 50), (1, 1), (150, 200)])
def test_equals_erosion_of_each_class(shape):
    rng = np.random.default_rng(shape[0])
    total, sums = torch.zeros(6, 6, dtype=torch.int64), np.zeros((2, 5))
    for noise in (0.0, 0.02, 0.9):
        target, prediction = blobs(rng, shape, 5), blobs(rng, shape, 4)
        target[rng.random(shape) < noise] = 2
        target[blobs(rng, shape, 6) == 0] = VOID
        total += boundary_matrix(torch.from_numpy(prediction).long(), torch.from_numpy(target),
                                 5, VOID)  # fmt: skip
        sums += slow_counts(prediction, target, 5)
    expected = [None if not union else hit / union for hit, union in sums.T]
    assert boundary_iou(total) == pytest.approx(expected, abs=1e-9)


def test_equals_erosion_of_real_masks(real_data: Path):
    source = camvid(real_data / "camvid", "test", CAMVID)
    total, sums = torch.zeros(12, 12, dtype=torch.int64), np.zeros((2, 11))
    for index in (0, 1):
        target = source.read(index)[1]
        prediction = np.roll(target, (2, 3), (0, 1))
        prediction[prediction == VOID] = 4
        total += boundary_matrix(torch.from_numpy(prediction), torch.from_numpy(target), 11, VOID)
        sums += slow_counts(prediction, target, 11)
    expected = [None if not union else hit / union for hit, union in sums.T]
    assert boundary_iou(total) == pytest.approx(expected, abs=1e-9)
    assert 0 < sums[0].sum() < sums[1].sum()


def test_width_is_that_of_the_authors():
    assert boundary_width((480, 640)) == 16
    assert boundary_width((1024, 2048)) == 46
    assert boundary_width((10, 10)) == 1


def test_the_edge_of_the_image_is_a_boundary():
    near = near_boundary(torch.zeros(9, 11, dtype=torch.uint8), 2)
    assert near.sum() == 9 * 11 - 5 * 7
    assert not near[2:-2, 2:-2].any()


def test_what_is_right_wherever_there_is_a_truth_scores_one():
    target = torch.zeros(60, 80, dtype=torch.uint8)
    target[:, 40:] = 1
    target[20:40, 10:70] = VOID
    matrix = boundary_matrix(target.masked_fill(target == VOID, 2), target, 4, VOID)
    assert boundary_iou(matrix) == [1.0, 1.0, None, None]
    assert matrix[:, 2].sum() == 0


def test_the_last_class_is_none_of_the_void():
    target = torch.full((30, 30), 253, dtype=torch.uint8)
    target[:4] = VOID
    assert boundary_iou(boundary_matrix(target, target, 254, VOID))[253] == 1.0
