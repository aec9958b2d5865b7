"""Scores of classes that may overlap, and the thresholds that validation chooses."""

import numpy as np
import pytest
import torch

from segtrain.dataset.labels import overlapping
from segtrain.inference.multilabel import MultilabelInference, masks_of
from segtrain.metric.multilabel import ThresholdCounts, best_thresholds, hits
from segtrain.planes import pack
from segtrain.task.multilabel import MultilabelEvaluation

NAMES = ("a", "b", "c")


def inference(thresholds=None):
    return MultilabelInference(
        None, False, [1.0], False, None, None, "nearest", "antialiased", False, thresholds
    )


def images(count=4):
    rng = np.random.default_rng(0)
    for _ in range(count):
        masks = rng.random((3, 8, 9)) < np.array([0.3, 0.5, 0.0])[:, None, None]
        scores = rng.beta(1 + 2 * masks, 2).astype(np.float32).round(2)
        yield scores, masks, rng.random((8, 9)) < 0.1


def evaluated(thresholds=None, chooses=False):
    evaluation = MultilabelEvaluation(overlapping(NAMES), inference(thresholds))
    for scores, masks, void in images():
        batch = {"mask": [torch.from_numpy(pack(masks, void))]}
        evaluation.update([torch.from_numpy(scores)], batch)
    if chooses:
        evaluation.choose()
    return evaluation


def test_scores_follow_their_definitions():
    found = evaluated([0.3, 0.62, 0.5]).compute()
    for k, threshold in enumerate([0.3, 0.62]):
        right = false = missed = 0
        for scores, masks, void in images():
            shown = (scores[k] >= np.float32(threshold)) & ~void
            right += (shown & masks[k]).sum()
            false += (shown & ~masks[k]).sum()
            missed += (~shown & masks[k] & ~void).sum()
        expected = {
            "iou": right / (right + false + missed),
            "dice": 2 * right / (2 * right + false + missed),
            "precision": right / (right + false),
            "recall": right / (right + missed),
        }
        for name, value in expected.items():
            assert found[f"per_class_{name}"][NAMES[k]] == pytest.approx(value), name
    assert found["per_class_average_precision"]["c"] is None
    assert found["per_class_recall"]["c"] is None
    known = [found["per_class_recall"][name] for name in "ab"]
    assert found["recall"] == pytest.approx(np.mean(known))


def test_validation_chooses_the_thresholds_of_the_largest_dice():
    evaluation = evaluated(chooses=True)
    chosen = evaluation.compute()["per_class_dice"]
    for k, name in enumerate("ab"):
        for other in (0.1, 0.25, 0.5, 0.77):
            given = [0.5, 0.5, 0.5]
            given[k] = other
            assert chosen[name] >= evaluated(given).compute()["per_class_dice"][name]
    assert evaluation.inference.thresholds[2] == 0.5


def test_given_thresholds_stay():
    evaluation = evaluated([0.1234, 0.5, 0.5], chooses=True)
    assert evaluation.inference.thresholds == [0.1234, 0.5, 0.5]
    assert evaluation.compute()["per_class_threshold"]["a"] == 0.1234


def test_of_equal_thresholds_the_middle_one_is_chosen():
    counts = ThresholdCounts([0.2, 0.4, 0.6, 0.9], 1)
    scores = torch.tensor([[[0.1, 0.95]]])
    valid = torch.ones(1, 2, dtype=torch.bool)
    counts.update(counts.of_image(scores, torch.tensor([[[False, True]]]), valid))
    assert best_thresholds(counts.compute().numpy(), [0.2, 0.4, 0.6, 0.9]) == [0.4]


def test_a_mask_begins_at_its_threshold():
    counts = ThresholdCounts([0.37], 1)
    scores = torch.tensor([[[0.37, 0.3699]]])
    all_of_it = torch.ones(1, 1, 2, dtype=torch.bool)
    counts.update(counts.of_image(scores, all_of_it, all_of_it[0]))
    assert hits(counts.compute().numpy()).right.tolist() == [[1]]
    assert masks_of(scores, [0.37]).tolist() == [[[True, False]]]


def test_an_image_has_the_miou_of_its_classes():
    evaluation = evaluated([0.5, 0.5, 0.5])
    scores, masks, void = next(iter(images()))
    ious = []
    for k in range(3):
        shown, truth = (scores[k] >= 0.5) & ~void, masks[k] & ~void
        if (shown | truth).any():
            ious.append((shown & truth).sum() / (shown | truth).sum())
    assert evaluation.image_scores()[0] == pytest.approx(np.mean(ious))
