"""Networks of zoos of single projects beside ours, see `zoo_parity`.

References are on random weights: PyTorch-Encoding's `EncNet` and `FCN` with plain batch norm and
the formulas of its compiled Encoding layer, kazuto1011's `DeepLabV2_ResNet101_MSC`, semseg's
`PSPNet`, VainF's DeepLabv3 and v3+.
"""

import pytest
from zoo_parity import check_logits, check_names

from segtrain.zoo.catalogue import entries

DAILY = {
    "encoding": ("encnet_resnet50s_pcontext", "fcn_resnet50s_ade"),
    "kazuto1011": ("deeplabv2_resnet101_msc-vocaug-20000",),
    "semseg": ("pspnet50_voc2012",),
    "vainf": ("deeplabv3_resnet50_voc_os16", "deeplabv3plus_resnet50_voc_os16"),
}
ROWS = [(zoo, model) for zoo in DAILY for model in entries(zoo)]


@pytest.mark.parametrize(("zoo", "model"), ROWS)
def test_files_are_recognised_and_fit_exactly(zoo, model):
    check_names(zoo, model)


@pytest.mark.parametrize(
    ("zoo", "model"),
    [pytest.param(zoo, model, marks=[] if model in DAILY[zoo] else [pytest.mark.slow])
     for zoo, model in ROWS],
)  # fmt: skip
def test_logits_equal_the_zoos(zoo, model):
    check_logits(zoo, model)
