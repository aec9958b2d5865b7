import numpy as np
import pytest
import torch

from segtrain.masks import encode
from segtrain.metric.confusion import confusion_matrix, scores
from segtrain.metric.image_scores import ImageScores, best_overlap, image_miou, panoptic_quality
from segtrain.metric.matching import EvaluatedImage


def test_miou_of_an_image_is_over_its_own_classes():
    truth, prediction = torch.tensor([[0, 0, 1, 255]]), torch.tensor([[0, 1, 1, 7]])
    counts = confusion_matrix(prediction, truth, 20, 255)
    assert image_miou(counts).item() == pytest.approx(scores(counts).miou)
    assert image_miou(counts).item() == pytest.approx(0.5)
    assert image_miou(torch.zeros(3, 3, dtype=torch.int64)).isnan()


def test_scores_keep_their_order_over_many_batches():
    kept = ImageScores()
    for batch in range(600):
        kept.add([torch.tensor(float(2 * batch)), torch.tensor(float(2 * batch + 1))])
    assert kept.tolist() == list(range(1200))
    assert len(kept._batches) < 260
    kept.reset()
    assert kept.tolist() == []


def evaluated(found, truth, crowd=None) -> EvaluatedImage:
    """Instances are (label, x1, x2[, score]), 10 pixels high."""

    def masks(entries):
        drawn = np.zeros((len(entries), 10, 100), np.uint8)
        for mask, (_, left, right, *_) in zip(drawn, entries, strict=True):
            mask[:, left:right] = 1
        return encode(drawn)

    labels = np.array([entry[0] for entry in truth], int)
    crowd = np.zeros(len(truth), bool) if crowd is None else np.array(crowd)
    target = {"labels": labels, "crowd": crowd, "codes": masks(truth), "size": (10, 100)}
    return EvaluatedImage(
        target,
        np.zeros((len(found), 4), np.float32),
        np.array([entry[3] for entry in found], np.float32),
        np.array([entry[0] for entry in found], int),
        masks(found),
    )


def test_panoptic_quality_by_hand():
    truth = [(0, 0, 20), (1, 40, 60)]
    assert panoptic_quality(evaluated([(0, 0, 20, 0.9), (1, 40, 60, 0.8)], truth)) == 1.0
    # one pair at IoU 15/20, one object missed, one detection too many
    assert panoptic_quality(evaluated([(0, 5, 20, 0.9), (1, 80, 90, 0.7)], truth)) == pytest.approx(
        0.75 / 2
    )
    # the wrong class, and an unsure detection, match nothing
    assert panoptic_quality(evaluated([(1, 0, 20, 0.9), (1, 40, 60, 0.4)], truth)) == 0.0
    # a second detection of the same object is one too many
    twice = [(0, 0, 20, 0.9), (0, 0, 20, 0.8), (1, 40, 60, 0.8)]
    assert panoptic_quality(evaluated(twice, truth)) == pytest.approx(2 / 2.5)


def test_panoptic_quality_of_crowds_and_of_nothing():
    crowd = evaluated([(0, 0, 10, 0.9)], [(0, 0, 50)], crowd=[True])
    assert np.isnan(panoptic_quality(crowd))
    assert np.isnan(panoptic_quality(evaluated([], [])))
    assert panoptic_quality(evaluated([(0, 0, 10, 0.9)], [])) == 0.0
    assert panoptic_quality(evaluated([], [(0, 0, 10)])) == 0.0


def test_best_overlap():
    found = [(0, 0, 10, 0.2), (0, 0, 20, 0.1), (0, 40, 50, 0.3)]
    assert best_overlap(evaluated(found, [(3, 0, 20), (5, 40, 60)])) == pytest.approx(0.75)
    assert best_overlap(evaluated([], [(3, 0, 20)])) == 0.0
    assert np.isnan(best_overlap(evaluated(found, [])))
