"""Rows of classifiers by the names of their classes."""

import pytest
import torch

from segtrain.dataset.labels import COCO_STUFF, CONTEXT, CONTEXT_59, VOC
from segtrain.errors import UserError
from segtrain.zoo.classes import in_order_of, labels_of, require_classes

# Position in our 59 classes of each class in the order of the raw ids, which other projects use.
RAW_ID_ORDER = (
    0, 20, 21, 51, 22, 1, 2, 3, 23, 4, 24, 5, 25, 6, 7, 26, 8, 27, 28, 9, 29, 41, 11, 30, 31, 32,
    33, 34, 35, 36, 12, 37, 38, 13, 39, 40, 14, 44, 42, 15, 45, 46, 16, 47, 48, 43, 49, 50, 17, 10,
    52, 18, 53, 54, 19, 55, 56, 57, 58,
)  # fmt: skip


def network(names):
    """Classifiers whose rows say which class they are of by its name's length and characters."""
    codes = torch.tensor([hash(name) % 9973 for name in names]).float()
    return {
        "head.classifier.weight": codes.view(-1, 1, 1, 1).expand(-1, 4, 1, 1),
        "head.classifier.bias": codes,
        "auxiliary.classifier.bias": codes,
        "context.presence_classifier.bias": codes,
        "head.conv.0.weight": torch.arange(float(len(names) * 3)).view(len(names), 3),
        "backbone.body.conv1.weight": torch.zeros(64, 3, 7, 7),
    }


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


ORDERS = {
    "Context by raw ids": ([CONTEXT_59.names[n] for n in RAW_ID_ORDER], CONTEXT_59.names),
    "COCO-Stuff of 182": ([*COCO_STUFF.names[:50], *map("unused {}".format, range(11)),
                           *COCO_STUFF.names[50:]], COCO_STUFF.names),
    "background last": ([*VOC.names[1:], VOC.names[0]], VOC.names),
    "background first": ([CONTEXT.names[0], *reversed(CONTEXT.names[1:])], CONTEXT.names),
    "as they are": (VOC.names, VOC.names),
}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
def test_rows_of_every_classifier_follow_the_names(order):
    theirs, ours = ORDERS[order]
    state, wanted = network(theirs), network(ours)
    found = in_order_of(state, theirs, ours, "net")
    assert_same({k: v for k, v in found.items() if "classifier" in k},
                {k: v for k, v in wanted.items() if "classifier" in k})  # fmt: skip
    assert torch.equal(found["head.conv.0.weight"], state["head.conv.0.weight"])


def test_a_class_that_the_network_does_not_know():
    with pytest.raises(UserError, match="net is for other classes: .*does not know background"):
        in_order_of(network(VOC.names[1:]), VOC.names[1:], VOC.names, "net")


def test_other_classes_than_the_data_set_are_told_in_short():
    require_classes(VOC.names[::-1], VOC, "net")
    with pytest.raises(UserError) as error:
        require_classes(CONTEXT_59.names, VOC, "mmseg/net")
    for part in ("mmseg/net is for other classes than the data set", "it knows 59",
                 "the data set has 21", "does not know background", "bag, bed, bench, book",
                 "and 34 more"):  # fmt: skip
        assert part in str(error.value)


def test_classes_of_data_sets_without_their_files():
    assert labels_of("context59") is CONTEXT_59
    with pytest.raises(UserError, match="dataset=folder has no classes of its own"):
        labels_of("folder")
    with pytest.raises(UserError, match="dataset=mine has no classes of its own"):
        labels_of("mine")
