import math

import numpy as np
import pytest
import torch
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.ops import box_iou

from segtrain.architecture.instance.boxes import (
    NEGATIVE,
    OBJECTS_AT_ONCE,
    UNDECIDED,
    clip,
    decode,
    encode,
    grid_anchors,
    match,
    sample,
)


def random_boxes(count, side=100.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * side
    return torch.cat([corners, corners + 1 + torch.rand(count, 2, generator=generator) * side], 1)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_offsets_are_torchvisions_and_lead_back(weights):
    boxes, anchors = random_boxes(50), random_boxes(50, seed=1)
    deltas = encode(boxes, anchors, weights)
    torch.testing.assert_close(deltas, BoxCoder(weights).encode_single(boxes, anchors))
    torch.testing.assert_close(decode(deltas, anchors, weights), boxes)


def test_absurd_offsets_stay_finite():
    box = decode(torch.full((1, 4), 1e4), torch.tensor([[0.0, 0, 10, 10]]), (1.0, 1.0, 1.0, 1.0))
    assert torch.isfinite(box).all()
    assert float(box[0, 2] - box[0, 0]) == pytest.approx(10 * 1000 / 16)


@pytest.mark.parametrize("rounded", [True, False])
def test_anchors_stand_on_the_grid(rounded):
    ratios, device = [0.5, 1.0, 2.0], torch.device("cpu")
    anchors = grid_anchors((2, 3), (8, 16), 32, ratios, device, rounded).numpy()
    expected = []
    for row in range(2):
        for column in range(3):
            for ratio in (0.5, 1.0, 2.0):
                height, width = 32 * math.sqrt(ratio), 32 / math.sqrt(ratio)
                cell = np.array([-width / 2, -height / 2, width / 2, height / 2])
                expected.append((cell.round() if rounded else cell) + [16 * column, 8 * row] * 2)
    np.testing.assert_allclose(anchors, expected, atol=1e-5)


@pytest.mark.parametrize("count", [1, 7, OBJECTS_AT_ONCE + 9])
@pytest.mark.parametrize("best_too", [False, True])
def test_matches_are_torchvisions(count, best_too):
    objects, boxes = random_boxes(count), random_boxes(500, seed=2)
    expected = Matcher(0.7, 0.3, best_too)(box_iou(objects, boxes))
    assert torch.equal(match(objects, boxes, 0.7, 0.3, best_too), expected)


def test_without_objects_all_is_negative():
    assert (match(torch.zeros(0, 4), random_boxes(5), 0.7, 0.3, True) == NEGATIVE).all()


def test_an_object_that_no_box_touches_claims_none():
    far = torch.tensor([[1e4, 1e4, 1e4 + 5, 1e4 + 5]])
    assert (match(far, random_boxes(5), 0.7, 0.3, True) == NEGATIVE).all()


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [(100, 100, (4, 12)), (2, 100, (2, 14)), (0, 100, (0, 16)), (100, 3, (4, 3)), (0, 0, (0, 0))],
)
def test_samples_keep_their_shares(positives, negatives, expected):
    matched = torch.cat([
        torch.full((positives,), 3), torch.full((negatives,), NEGATIVE), torch.full((9,), UNDECIDED)
    ])[torch.randperm(positives + negatives + 9)]  # fmt: skip
    positive, negative = sample(matched, 16, 0.25)
    assert (len(positive), len(negative)) == expected
    assert (matched[positive] == 3).all()
    assert (matched[negative] == NEGATIVE).all()
    assert len(set(positive.tolist())) == len(positive)


def test_clipped_boxes_lie_inside():
    boxes = torch.tensor([[-5.0, 3, 300, 40], [10, -2, 20, 90]])
    assert clip(boxes, (50, 200)).tolist() == [[0, 3, 200, 40], [10, 0, 20, 50]]
