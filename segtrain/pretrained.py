"""torchvision's trained segmentation models as networks of this package."""

from pathlib import Path
from typing import NamedTuple

import torch

from segtrain.architecture.published import fetch_torchvision, from_published, of_torchvision
from segtrain.architecture.weights import read_state_dict
from segtrain.assembly import make
from segtrain.configuration.composing import compose_config
from segtrain.contracts import LabelSet
from segtrain.dataset.labels import COCO, VOC
from segtrain.errors import UserError
from segtrain.trained import Trained

PREFIX = "torchvision/"
SHORT_SIDE = 520  # pixels; torchvision tests its semantic models at this size


class Choice(NamedTuple):
    """The network that takes the weights of one of torchvision's models."""

    architecture: str
    backbone: str
    labels: LabelSet
    short_side: int | None
    overrides: tuple[str, ...] = ()


CHOICES = {
    "fcn_resnet50": Choice("fcn_torchvision", "resnet50.tv_in1k", VOC, SHORT_SIDE),
    "fcn_resnet101": Choice("fcn_torchvision", "resnet101.tv_in1k", VOC, SHORT_SIDE),
    "deeplabv3_resnet50": Choice("deeplabv3_torchvision", "resnet50.tv_in1k", VOC, SHORT_SIDE),
    "deeplabv3_resnet101": Choice("deeplabv3_torchvision", "resnet101.tv_in1k", VOC, SHORT_SIDE),
    "maskrcnn_resnet50_fpn": Choice(
        "mask_rcnn", "resnet50.tv_in1k", COCO, None,
        ("inference.short_sides=[800]", "inference.long_side=1333"),
    ),
}  # fmt: skip


def read_torchvision(name: str, file: str | Path | None) -> Trained:
    """What rebuilds torchvision's model `name`, with its trained weights.

    Args:
        name: one of CHOICES, with `torchvision/` in front.
        file: its state dict where it lies on the disk already; None fetches it.

    Raises:
        UserError: the model has no counterpart here, or its weights cannot be had.
    """
    model = name.removeprefix(PREFIX)
    if model not in CHOICES:
        raise UserError(f"{name} has no counterpart in this package; these have: "
                        + ", ".join(PREFIX + known for known in CHOICES))  # fmt: skip
    choice = CHOICES[model]
    if file is None:
        state = fetch_torchvision(model, key="weights_file")
    else:
        state = of_torchvision(model, read_state_dict(file))
    overrides = [f"architecture={choice.architecture}", *choice.overrides,
                 f"architecture.backbone.name={choice.backbone}"]  # fmt: skip
    if choice.labels is VOC:  # a file may be of a model that was saved without its auxiliary head
        has_auxiliary = any(key.startswith("aux_classifier.") for key in state)
        overrides.append(f"architecture.auxiliary={str(has_auxiliary).lower()}")
    config = compose_config([*overrides, "architecture.backbone.weights=none"])
    with torch.device("meta"):  # its shapes are enough
        own = make(config["architecture"], num_classes=choice.labels.num_classes).state_dict()
    return Trained(
        origin=name if file is None else str(file),
        config={"experiment": name, **{k: config[k] for k in ("architecture", "inference")}},
        labels=choice.labels,
        state=from_published(state, own),
        short_side=choice.short_side,
    )
