"""VainF's DeepLabv3 and v3+. References: its networks on random weights, see `zoo_parity`."""

import pytest
from zoo_parity import check_logits, check_names

from segtrain.zoo.catalogue import entries
from segtrain.zoo.names import vainf

SMALL = ("deeplabv3_resnet50_voc_os16", "deeplabv3plus_resnet50_voc_os16")


@pytest.mark.parametrize("model", entries("vainf"))
def test_files_are_recognised_and_fit_exactly(model):
    check_names(vainf, "vainf", model)


@pytest.mark.parametrize("model", SMALL)
def test_logits_equal_the_zoos(model):
    check_logits(vainf, "vainf", model)


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(entries("vainf").keys() - set(SMALL)))
def test_logits_of_the_others_equal_the_zoos(model):
    check_logits(vainf, "vainf", model)
