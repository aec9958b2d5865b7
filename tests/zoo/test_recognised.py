"""Every zoo's files are told from those of the others, of torchvision and of this package."""

from importlib import import_module
from pkgutil import iter_modules

import pytest
import torch
from torchvision.models import segmentation
from zoo_parity import FOLDER, network, state_of

import segtrain.zoo.names
from segtrain.zoo.catalogue import find

NAMES = {
    found.name: import_module(f"segtrain.zoo.names.{found.name}")
    for found in iter_modules(segtrain.zoo.names.__path__)
}
FILES = sorted(
    f"{file.parent.name}/{file.name.removesuffix('.txt.gz')}" for file in FOLDER.glob("*/*.txt.gz")
)


def recognising(state: dict[str, torch.Tensor]) -> list[str]:
    return [zoo for zoo, names in NAMES.items() if names.recognised(state) is not None]


@pytest.mark.parametrize("file", FILES)
def test_only_its_zoo_recognises_a_file(file):
    zoo, _, model = file.partition("/")
    assert recognising(state_of(zoo, model, on_meta=True)) == [zoo]


@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_resnet101"])
def test_no_other_zoo_recognises_torchvisions(name):
    with torch.device("meta"):
        state = getattr(segmentation, name)(aux_loss=True, weights_backbone=None).state_dict()
    assert recognising(state) in ([], ["torchvision"])


@pytest.mark.parametrize("file", FILES)
def test_no_zoo_recognises_ours(file):
    with torch.device("meta"):
        state = network(find(file), 21).state_dict()
    assert recognising(state) == []
