"""Average precision from counts of scores, in bounded memory and on any number of processes."""

import numpy as np
import pytest
import torch

from segtrain.metric import score_counts
from segtrain.metric.score_counts import ScoreCounts, average_precision, places


def slow(scores, truth):
    """The definition: over the thresholds, precision times the recall gained."""
    total, before, area = truth.sum(), 0.0, 0.0
    for threshold in np.unique(scores)[::-1]:
        chosen = scores >= threshold
        recall = truth[chosen].sum() / total
        area += (recall - before) * truth[chosen].mean()
        before = recall
    return area


def drawn(kind, size, rng):
    truth = rng.random(size) < 0.2
    scores = 1 / (1 + np.exp(-rng.normal(truth * 1.5 - 1, 1.0)))
    if kind == "tied":
        scores = scores.round(1)
    if kind == "ends":
        scores = np.where(rng.random(size) < 0.5, truth.astype(float), scores)
    return scores.astype(np.float32), truth


def added(counts, scores, truth):
    counts.update(
        torch.from_numpy(scores)[:, None], torch.from_numpy(truth)[:, None],
        torch.ones(1, scores.shape[1], dtype=torch.bool),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["random", "tied", "ends"])
def test_equal_to_the_definition(kind):
    rng = np.random.default_rng(0)
    images = [drawn(kind, (2, 400), rng) for _ in range(3)]
    counts = ScoreCounts(2, most=2500)
    for scores, truth in images:
        added(counts, scores, truth)
    scores, truth = (np.concatenate(parts, 1) for parts in zip(*images, strict=True))
    for label, table in enumerate(counts.compute()):
        expected = slow(scores[label], truth[label])
        assert average_precision(table) == pytest.approx(expected, abs=1e-6)
        assert table.sum() == 1200


def test_equal_to_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rng = np.random.default_rng(1)
    for kind in ("random", "tied", "ends"):
        scores, truth = drawn(kind, (1, 50_000), rng)
        counts = ScoreCounts(1)
        added(counts, scores, truth)
        expected = metrics.average_precision_score(truth[0], scores[0])
        assert average_precision(counts.compute()[0]) == pytest.approx(expected, abs=1e-6)


def test_places_are_in_the_order_of_the_scores():
    scores = torch.tensor([0.0, 1e-40, 0.3, 0.49999997, 0.5, 0.50000006, 0.75, 0.99999994, 1.0])
    assert (places(scores).diff() > 0).all()
    assert places(torch.tensor([-0.0])).equal(places(torch.tensor([0.0])))


def test_void_pixels_count_nowhere():
    counts = ScoreCounts(1)
    scores = torch.tensor([[[0.9, 0.8, 0.1]]])
    valid = torch.tensor([[True, False, True]])
    counts.update(scores, valid[None], valid)
    assert average_precision(counts.compute()[0]) == 1.0


def test_a_class_that_covers_nothing_has_no_average_precision():
    counts = ScoreCounts(2)
    added(counts, np.float32([[0.5], [0.1]]), np.array([[False], [True]]))
    found = [average_precision(table) for table in counts.compute()]
    assert found == [None, 1.0]
    assert [average_precision(table) for table in ScoreCounts(2).compute()] == [None, None]


@pytest.mark.parametrize("most", [10_000, 300])
def test_the_same_on_any_number_of_processes(monkeypatch, most):
    rng = np.random.default_rng(2)
    images = [drawn("random", (2, 100), rng) for _ in range(5)]
    alone = ScoreCounts(2, most)
    for image in images:
        added(alone, *image)
    expected = alone.compute()
    shards = []
    for process in range(3):
        shard = ScoreCounts(2, most)
        for image in images[process::3]:
            added(shard, *image)
        shard._merge()
        shards.append((shard.dropped, shard._keys, shard._counts))

    class Group:
        def __enter__(self):
            return "group"

        def __exit__(self, *error):
            return None

    def gather(parts, own, group):
        parts[:] = shards

    monkeypatch.setattr(score_counts, "collective", Group)
    monkeypatch.setattr(score_counts.dist, "get_world_size", lambda: 3)
    monkeypatch.setattr(score_counts.dist, "all_gather_object", gather)
    together = ScoreCounts(2, most)
    for table, other in zip(together.compute(), expected, strict=True):
        assert np.array_equal(table, other)
    assert together.dropped == alone.dropped


def test_memory_is_bounded_and_the_order_of_images_changes_nothing():
    rng = np.random.default_rng(3)
    images = [drawn("random", (1, 300), rng) for _ in range(6)]
    found = []
    for order in (images, images[::-1]):
        counts = ScoreCounts(1, most=200)
        for image in order:
            added(counts, *image)
        found.append(counts.compute()[0])
        assert len(counts._keys) <= 200
    assert np.array_equal(found[0], found[1])
    scores, truth = (np.concatenate(parts, 1) for parts in zip(*images, strict=True))
    assert average_precision(found[0]) == pytest.approx(slow(scores[0], truth[0]), abs=0.03)
