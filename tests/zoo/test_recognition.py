"""Whose a state dict is, by its names."""

import pytest
import torch
from conftest import composed
from torchvision.models import detection, segmentation

from segtrain.configuration.folder import options
from segtrain.published.network import DATASETS, shapes
from segtrain.zoo.catalogue import entries, zoo_names
from segtrain.zoo.classes import labels_of
from segtrain.zoo.recognition import recognise

TORCHVISION = {
    "fcn_resnet50": (segmentation, "FCN ResNet-50", 21),
    "fcn_resnet101": (segmentation, "FCN ResNet-101", 21),
    "deeplabv3_resnet50": (segmentation, "DeepLabv3 ResNet-50", 21),
    "deeplabv3_resnet101": (segmentation, "DeepLabv3 ResNet-101", 21),
    "maskrcnn_resnet50_fpn": (detection, "Mask R-CNN ResNet-50", 80),
}


@pytest.mark.parametrize("architecture", options("architecture"))
def test_networks_of_our_own_are_of_no_other_project(architecture):
    chosen = f"architecture={architecture}"
    config = composed(chosen, "architecture.backbone.weights=none")
    assert recognise(shapes(config["architecture"], 21)) is None


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_networks_are_told_and_fit(name):
    module, system, classes = TORCHVISION[name]
    with torch.device("meta"):
        state = module.__dict__[name](weights=None, weights_backbone=None).state_dict()
    zoo, found = recognise(state)
    assert (zoo, found.system, found.num_classes) == ("torchvision", system, classes)
    config = composed(*found.architecture, "architecture.backbone.weights=none")
    own = shapes(config["architecture"], classes)
    assert set(own) >= {"backbone.body.layer4.2.conv3.weight"}


def test_torchvisions_other_networks_are_not_taken_for_these():
    with torch.device("meta"):
        others = [
            segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None),
            segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None),
            detection.maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None),
            detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None),
        ]
    assert [recognise(network.state_dict()) for network in others] == [None] * 4


def test_the_number_of_classes_tells_the_data_set_of_every_row():
    for zoo in zoo_names():
        for row in entries(zoo).values():
            count = labels_of(row.dataset).num_classes
            if row.dataset == "cityscapes_instances":  # eight classes may be somebody's own
                assert count not in DATASETS
                continue
            assert labels_of(DATASETS[count]).names == labels_of(row.dataset).names
