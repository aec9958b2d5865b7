"""PyTorch-Encoding's EncNets and FCN.

References: its `EncNet` and `FCN` with plain batch norm and the formulas of its compiled Encoding
layer, on random weights, see `zoo_parity`.
"""

import pytest
from zoo_parity import check_logits, check_names

from segtrain.zoo.catalogue import entries
from segtrain.zoo.names import encoding

SMALL = ("encnet_resnet50s_pcontext", "fcn_resnet50s_ade")


@pytest.mark.parametrize("model", entries("encoding"))
def test_files_are_recognised_and_fit_exactly(model):
    check_names(encoding, "encoding", model)


@pytest.mark.parametrize("model", SMALL)
def test_logits_equal_the_zoos(model):
    check_logits(encoding, "encoding", model)


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(entries("encoding").keys() - set(SMALL)))
def test_logits_of_the_others_equal_the_zoos(model):
    check_logits(encoding, "encoding", model)
