import numpy as np
import pytest
import torch

from segtrain.dataset.labels import SHAPES, SHAPES_PANOPTIC
from segtrain.dataset.shapes_panoptic import shapes_panoptic
from segtrain.errors import UserError
from segtrain.label_set import VOID
from segtrain.segments import keys, unpack

THINGS = SHAPES_PANOPTIC.things


def split(name="train", count=40, size=(96, 96), seed=0):
    return shapes_panoptic(name, SHAPES_PANOPTIC, {name: count}, size, seed)


@pytest.fixture(scope="module")
def found():
    """Segments of some pictures."""
    source = split()
    return [unpack(torch.from_numpy(source.read(index)[1])) for index in range(len(source))]


def touching(one, other):
    """Whether two masks (H, W) are disjoint and have neighbouring pixels."""
    grown = torch.nn.functional.max_pool2d(one[None, None].float(), 3, 1, 1)[0, 0].bool()
    return not (one & other).any() and bool((grown & other).any())


def test_a_picture_depends_on_its_index_alone():
    one, other, small = split(), split(), split(size=(40, 70))
    other.read(3)
    for ours, theirs in zip(one.read(7), other.read(7), strict=True):
        assert np.array_equal(ours, theirs)
    assert [array.shape for array in small.read(7)] == [(40, 70, 3)] * 2
    changed = [split("val"), split(seed=1)]
    assert not any(np.array_equal(one.read(7)[0], source.read(7)[0]) for source in changed)
    assert len({source.listing().key for source in (one, small, *changed)}) == 4


def test_arrays_belong_to_the_caller():
    source = split()
    for array in source.read(0):
        array[:] = 0
    assert all(array.any() for array in source.read(0))


def test_stuff_is_one_segment_a_class_and_things_are_numbered_from_one(found):
    for segments in found:
        stuff = [label for label in segments.labels.tolist() if label not in THINGS]
        assert len(stuff) == len(set(stuff)) > 0
    source = split()
    for index in range(len(source)):
        own = keys(torch.from_numpy(source.read(index)[1])).unique()
        numbers = own[(own < VOID << 16)] & 0xFFFF
        single = sorted(set(numbers.tolist()) - {0, 0xFFFF})
        assert single == list(range(1, len(single) + 1))


def test_things_of_one_class_touch_and_all_kinds_of_regions_are_there(found):
    pairs = crowds = 0
    for segments in found:
        crowds += int(segments.crowd.any())
        single = ~segments.crowd
        for label in THINGS:
            own = segments.masks[(segments.labels == label) & single]
            pairs += any(touching(a, b) for i, a in enumerate(own) for b in own[:i])
    source = split()
    counts = np.stack([source.class_counts(index) for index in range(len(source))])
    assert pairs > len(found) / 4
    assert 0 < crowds < len(found) / 3
    assert (counts.sum(0) > 0).all()
    assert 0 < np.count_nonzero(counts[:, -1]) < len(found) / 2
    assert (counts.sum(1) == 96 * 96).all()


def test_things_are_large_enough_to_be_found(found):
    sizes = torch.cat([s.masks[[i in THINGS and not c for i, c in zip(s.labels.tolist(), s.crowd,
                       strict=True)]].sum((1, 2)) for s in found])  # fmt: skip
    assert sizes.min() >= 24


def test_things_look_as_in_shapes():
    names, palette = SHAPES_PANOPTIC.names, SHAPES_PANOPTIC.palette
    assert names[:5] == SHAPES.names[1:6]
    assert palette[:5] == SHAPES.palette[1:6]
    assert {names[label] for label in range(8) if label not in THINGS} == {"sky", "grass", "water"}


def test_another_split_is_refused():
    with pytest.raises(UserError, match="no split 'holdout'; expected one of train"):
        shapes_panoptic("holdout", SHAPES_PANOPTIC, {"train": 3}, [64, 64], 0)
