"""DeepLabv3 and v3+ of github.com/VainF/DeepLabV3Plus-Pytorch on ResNets."""

from torch import Tensor

from segtrain.architecture.weights import resnet_name
from segtrain.zoo.entry import Recognised
from segtrain.zoo.names import rename

V3, V3PLUS = "classifier.classifier.4.weight", "classifier.classifier.3.weight"  # classifiers
V3_NAMES = (
    ("backbone.", "backbone.body."),
    ("classifier.classifier.0.convs.4.1.", "head.aspp.image_pooling.0."),
    ("classifier.classifier.0.convs.4.2.", "head.aspp.image_pooling.1."),
    ("classifier.classifier.0.convs.", "head.aspp.branches."),
    ("classifier.classifier.0.project.", "head.aspp.project."),
    ("classifier.classifier.1.", "head.refine.0."),
    ("classifier.classifier.2.", "head.refine.1."),
    ("classifier.classifier.4.", "head.classifier."),
)
V3PLUS_NAMES = (
    ("backbone.", "backbone.body."),
    ("classifier.project.", "decoder.reduce."),
    ("classifier.aspp.convs.4.1.", "aspp.image_pooling.0."),
    ("classifier.aspp.convs.4.2.", "aspp.image_pooling.1."),
    ("classifier.aspp.convs.", "aspp.branches."),
    ("classifier.aspp.project.", "aspp.project."),
    ("classifier.classifier.0.", "decoder.convs.0.0."),
    ("classifier.classifier.1.", "decoder.convs.0.1."),
    ("classifier.classifier.3.", "classifier."),
)
BACKBONES = {"ResNet-50": "resnet50.tv_in1k", "ResNet-101": "resnet101.tv_in1k"}
V3_ARCHITECTURE = (
    "architecture=deeplabv3_torchvision",
    "architecture.dropout=0.1",
    "architecture.auxiliary=false",
    "architecture.backbone.output_stride=16",
)
V3PLUS_ARCHITECTURE = (
    "architecture=deeplabv3plus",
    "architecture.decoder_convolutions=1",
    "architecture.align_corners=false",
    "architecture.backbone.uniform_dilation=false",
    "architecture.backbone.multi_grid=null",
)


def recognised(state: dict[str, Tensor]) -> Recognised | None:
    """What the names and shapes tell of a DeepLabv3 or v3+; None where they are of another project.

    Also of those on other backbones. The output stride cannot be told: it is that of the zoo's
    trainings, 16.
    """
    resnet = resnet_name(state)
    if resnet not in BACKBONES or "backbone.conv1.weight" not in state:
        return None
    backbone = f"architecture.backbone.name={BACKBONES[resnet]}"
    if {"classifier.classifier.0.convs.0.0.weight", V3} <= state.keys():
        return Recognised(f"DeepLabv3 {resnet}", (*V3_ARCHITECTURE, backbone), len(state[V3]))
    if {"classifier.aspp.convs.0.0.weight", "classifier.project.0.weight", V3PLUS} <= state.keys():
        return Recognised(
            f"DeepLabv3+ {resnet}", (*V3PLUS_ARCHITECTURE, backbone), len(state[V3PLUS])
        )
    return None


def renamed(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under our names; `own` are the network's.

    v3+ joins its low-level map and the encoder's, in this order; ours has the encoder's first.
    """
    if V3 in state:
        return rename(state, V3_NAMES)
    state = rename(state, V3PLUS_NAMES)
    joined = "decoder.convs.0.0.weight"  # (256, low + encoder, 3, 3)
    low_level = len(state["decoder.reduce.0.weight"])
    return state | {joined: state[joined].roll(-low_level, 1)}
