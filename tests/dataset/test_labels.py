import csv

import numpy as np
import pytest

from segtrain.dataset import labels as sets
from segtrain.errors import UserError
from segtrain.label_set import LabelSet

LABEL_SETS = {name: value for name, value in vars(sets).items() if isinstance(value, LabelSet)}


@pytest.mark.parametrize("labels", LABEL_SETS.values(), ids=LABEL_SETS)
def test_round_trip_and_colours(labels):
    void = [labels.ignore_index] if None in labels.raw_to_train.values() else []
    train = np.array([[*range(labels.num_classes), *void]], np.uint8)
    assert (labels.encode(labels.decode(train)) == train).all()
    colours = labels.colorize(train)[0, : labels.num_classes]
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


def test_cityscapes_table_is_the_scripts():
    scripts = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    for label in scripts:
        if label.id >= 0:
            train = None if label.ignoreInEval else label.trainId
            assert sets.CITYSCAPES.raw_to_train[label.id] == train
            if train is not None:
                assert sets.CITYSCAPES.names[train] == label.name
                assert sets.CITYSCAPES.palette[train] == label.color
    things = [label.id for label in scripts if label.hasInstances and not label.ignoreInEval]
    assert list(sets.CITYSCAPES_INSTANCES.raw_to_train) == things


def test_coco_stuff_leaves_out_the_labels_that_were_never_annotated():
    unused = [11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90]  # 0-based ids
    for raw, train in sets.COCO_STUFF.raw_to_train.items():
        if raw != 255:
            assert raw not in unused
            assert train == raw - sum(other < raw for other in unused)
            assert sets.COCO_STUFF_10K.raw_to_train[raw + 1] == train
    assert sets.COCO_STUFF.names[:80] == sets.COCO.names


def test_context_rules():
    assert sets.CONTEXT.num_classes == 60
    assert sets.CONTEXT_59.num_classes == 59
    for raw in range(460):
        with_background, without = sets.CONTEXT.raw_to_train[raw], sets.CONTEXT_59.raw_to_train[raw]
        assert without == (with_background - 1 if with_background else None)
    assert sets.CONTEXT.names[1:21] == sets.VOC.names[1:]


def test_context_classes_are_those_of_the_real_lists(real_data):
    folder = real_data / "pascal_context"
    with open(folder / "class_mapping.csv") as file:
        for row in csv.DictReader(file):
            assert sets.CONTEXT.raw_to_train[int(row["id459"])] == int(row["id59"])
            assert sets.CONTEXT.names[int(row["id59"])] == row["name59"]


def test_map_is_described_in_ranges():
    text = sets.CITYSCAPES.describe()
    assert text.startswith("0-6,9-10,14-16,18,29-30,255->void 7->road 8->sidewalk")
    assert len(sets.CONTEXT.describe()) < 1500
