"""Panoptic labels in three bytes a pixel."""

import numpy as np
import torch

from segtrain.label_set import VOID, LabelSet
from segtrain.segments import CROWD, MOST, count_segments, pack, unpack

CLASSES = np.array([[0, 0, 1, 1], [2, 2, 1, VOID], [2, 2, 1, VOID]], np.uint8)
NUMBERS = np.array([[0, 0, 1, 1], [CROWD, CROWD, MOST, 0], [CROWD, CROWD, MOST, 7]])
PALETTE = ((0, 0, 0), (9, 9, 9))


def test_segments_are_what_was_packed():
    found = unpack(torch.from_numpy(pack(CLASSES, NUMBERS)))
    assert found.labels.tolist() == [0, 1, 1, 2]
    assert found.crowd.tolist() == [False, False, False, True]
    pairs = ((0, 0), (1, 1), (1, MOST), (2, CROWD))
    expected = [(label == CLASSES) & (number == NUMBERS) for label, number in pairs]
    assert np.array_equal(found.masks.numpy(), np.stack(expected))


def test_segments_of_a_semantic_map_are_its_classes():
    found = unpack(torch.from_numpy(CLASSES))
    assert found.labels.tolist() == [0, 1, 2]
    assert not found.crowd.any()
    assert np.array_equal(found.masks.numpy(), np.stack([k == CLASSES for k in range(3)]))


def test_an_image_of_void_has_no_segment():
    found = unpack(torch.full((4, 5, 3), VOID, dtype=torch.uint8))
    assert found.masks.shape == (0, 4, 5)
    assert found.labels.shape == (0,)


def test_pixels_are_counted_by_class():
    assert count_segments(pack(CLASSES, NUMBERS), 3).tolist() == [2, 4, 4, 2]


def test_label_sets_remember_their_things():
    labels = LabelSet(("sky", "car"), PALETTE, {0: 0, 1: 1}, things=frozenset({1}))
    assert LabelSet.from_plain(labels.to_plain()).things == {1}
    plain = LabelSet(("a", "b"), PALETTE, {0: 0, 1: 1}).to_plain()
    assert LabelSet.from_plain(plain).things is None
