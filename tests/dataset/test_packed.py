import numpy as np
import pytest

from segtrain.dataset.packed import PackedStrings


@pytest.mark.parametrize("strings", [[], ["a"], ["", "bc", "", "grün/straße", "x" * 1000]])
def test_is_the_list(strings):
    packed = PackedStrings(strings)
    assert len(packed) == len(strings)
    assert list(packed) == strings
    if strings:
        assert packed[-1] == strings[-1]
        assert packed[np.int64(0)] == strings[0]
    for beyond in (len(strings), -len(strings) - 1):
        with pytest.raises(IndexError):
            packed[beyond]
