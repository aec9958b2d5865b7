"""kazuto1011's DeepLabv2.

References: its `DeepLabV2_ResNet101_MSC` on random weights, see `zoo_parity`.
"""

import pytest
from zoo_parity import check_logits, check_names

from segtrain.zoo.catalogue import entries
from segtrain.zoo.names import kazuto1011

SMALL = ("deeplabv2_resnet101_msc-vocaug-20000",)


@pytest.mark.parametrize("model", entries("kazuto1011"))
def test_files_are_recognised_and_fit_exactly(model):
    check_names(kazuto1011, "kazuto1011", model)


@pytest.mark.parametrize("model", SMALL)
def test_logits_equal_the_zoos(model):
    check_logits(kazuto1011, "kazuto1011", model)


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(entries("kazuto1011").keys() - set(SMALL)))
def test_logits_of_the_others_equal_the_zoos(model):
    check_logits(kazuto1011, "kazuto1011", model)
