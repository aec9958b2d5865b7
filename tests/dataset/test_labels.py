import numpy as np
import pytest

from segtrain.contracts import LabelSet
from segtrain.dataset import labels as sets
from segtrain.errors import UserError

LABEL_SETS = {name: value for name, value in vars(sets).items() if isinstance(value, LabelSet)}


@pytest.mark.parametrize("labels", LABEL_SETS.values(), ids=LABEL_SETS)
def test_round_trip_and_colours(labels):
    train = np.array([[*range(labels.num_classes), labels.ignore_index]], np.uint8)
    assert (labels.encode(labels.decode(train)) == train).all()
    colours = labels.colorize(train)[0, :-1]
    assert len({tuple(colour) for colour in colours}) == labels.num_classes


def test_wide_raw_values():
    labels = LabelSet(("a", "b"), ((0, 0, 0), (1, 1, 1)), {300: 0, 4000: 1, 0: None})
    raw = np.array([[300, 4000, 0]], np.uint16)
    assert labels.encode(raw).tolist() == [[0, 1, 255]]
    assert labels.decode(labels.encode(raw)).tolist() == raw.tolist()
    for value in (7, 60000):
        with pytest.raises(UserError, match=f"mask value {value} is not"):
            labels.encode(np.array([[value]], np.uint16))


def test_incomplete_map_is_refused():
    with pytest.raises(ValueError, match="label set"):
        LabelSet(("a", "b"), ((0, 0, 0), (1, 1, 1)), {0: 0})
