import numpy as np
import pytest

from segtrain.dataset.labels import SHAPES
from segtrain.dataset.preflight import check_labels
from segtrain.errors import UserError


class Masks:
    """A source of given masks that remembers what was read."""

    def __init__(self, masks):
        self.masks = masks
        self.seen = []

    def __len__(self):
        return len(self.masks)

    def name(self, index):
        return str(index)

    def read(self, index):
        self.seen.append(index)
        return np.zeros((*self.masks[index].shape, 3), np.uint8), self.masks[index]


def test_counts_an_even_sample():
    masks = [np.full((2, 2), index % 3, np.uint8) for index in range(100)]
    source = Masks(masks)
    counts = check_labels(source, SHAPES, "train", sample_size=10)
    assert source.seen == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]
    assert counts.sum() == 40
    assert len(counts) == SHAPES.num_classes


@pytest.mark.parametrize("value", [0, 255])
def test_one_class_alone_is_refused(value):
    with pytest.raises(UserError, match=r"split 'val'.*2 masks show only"):
        check_labels(Masks([np.full((2, 2), value, np.uint8)] * 2), SHAPES, "val", 5)
