import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassF1Score, MulticlassJaccardIndex

from segtrain.metric.confusion import ConfusionMatrix, confusion_matrix, dice, scores


def slow_matrix(prediction, target, num_classes):
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for p, t in zip(prediction.ravel(), target.ravel(), strict=True):
        if t != 255:
            matrix[t, p] += 1
    return matrix


@pytest.mark.parametrize("num_classes", [2, 21, 171, 200])
def test_equals_slow_reference(num_classes):
    rng = np.random.default_rng(num_classes)
    prediction = rng.integers(0, num_classes, (3, 17, 19))
    target = rng.integers(0, num_classes, (3, 17, 19)).astype(np.uint8)
    target[rng.random(target.shape) < 0.2] = 255
    ours = confusion_matrix(
        torch.from_numpy(prediction), torch.from_numpy(target), num_classes, ignore_index=255
    )
    assert ours.dtype == torch.int64
    assert (ours.numpy() == slow_matrix(prediction, target, num_classes)).all()


def test_scores_equal_torchmetrics():
    torch.manual_seed(0)
    prediction, target = torch.randint(0, 7, (2, 50, 50)), torch.randint(0, 7, (2, 50, 50))
    target[0, :9] = 255
    peer = MulticlassJaccardIndex(7, ignore_index=255, average="none")(prediction, target)
    ours = scores(confusion_matrix(prediction, target, 7, 255))
    assert ours.per_class_iou == pytest.approx(peer.tolist(), abs=1e-6)
    assert ours.miou == pytest.approx(peer.mean().item(), abs=1e-6)


def test_hand_made_scores():
    matrix = torch.tensor([[3, 1, 0, 0], [0, 4, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]])
    result = scores(matrix)
    assert result.per_class_iou == [3 / 4, 4 / 7, 0.0, None]
    assert result.miou == pytest.approx((3 / 4 + 4 / 7 + 0) / 3)
    assert result.pixel_accuracy == pytest.approx(7 / 10)
    assert result.mean_accuracy == pytest.approx((3 / 4 + 1 + 0) / 3)
    assert result.fwiou == pytest.approx((4 * 3 / 4 + 4 * 4 / 7 + 2 * 0) / 10)


def test_absent_class_is_left_out_and_false_positive_is_not():
    absent = scores(torch.tensor([[5, 0, 0], [0, 5, 0], [0, 0, 0]]))
    assert absent.per_class_iou[2] is None
    assert absent.miou == 1.0
    false_positive = scores(torch.tensor([[4, 0, 1], [0, 5, 0], [0, 0, 0]]))
    assert false_positive.per_class_iou[2] == 0.0


def test_nothing_valid_gives_no_numbers():
    empty = scores(confusion_matrix(torch.zeros(4), torch.full((4,), 255), 3, 255))
    assert empty.miou is None
    assert empty.pixel_accuracy is None


def test_update_order_does_not_matter_and_inputs_stay():
    target = torch.randint(0, 3, (4, 10, 10), dtype=torch.uint8)
    prediction = torch.randint(0, 3, (4, 10, 10))
    kept = target.clone()
    whole, parts = ConfusionMatrix(3), ConfusionMatrix(3)
    whole.update(confusion_matrix(prediction, target, 3, 255))
    for index in (2, 0, 3, 1):
        parts.update(confusion_matrix(prediction[index], target[index], 3, 255))
    assert torch.equal(whole.compute(), parts.compute())
    assert torch.equal(target, kept)


def test_dice_equals_f1_and_slow_numpy():
    rng = np.random.default_rng(0)
    prediction, target = rng.integers(0, 5, (2, 40, 40))
    target[0, :9] = 255
    valid = target != 255
    pairs = [((prediction == k) & valid, target == k) for k in range(6)]
    slow = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs[:5]]
    given = torch.from_numpy(prediction), torch.from_numpy(target)
    found = dice(confusion_matrix(*given, 6, 255))
    assert found == pytest.approx([*slow, None], abs=1e-12)
    peer = MulticlassF1Score(6, ignore_index=255, average="none")(*given)
    assert found[:5] == pytest.approx(peer[:5].tolist(), abs=1e-6)
