"""semseg's PSPNets. References: its `PSPNet` on random weights, see `zoo_parity`."""

import pytest
from zoo_parity import check_logits, check_names

from segtrain.zoo.catalogue import entries
from segtrain.zoo.names import semseg

SMALL = ("pspnet50_voc2012",)


@pytest.mark.parametrize("model", entries("semseg"))
def test_files_are_recognised_and_fit_exactly(model):
    check_names(semseg, "semseg", model)


@pytest.mark.parametrize("model", SMALL)
def test_logits_equal_the_zoos(model):
    check_logits(semseg, "semseg", model)


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(entries("semseg").keys() - set(SMALL)))
def test_logits_of_the_others_equal_the_zoos(model):
    check_logits(semseg, "semseg", model)
