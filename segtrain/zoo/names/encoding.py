"""EncNet and FCN of github.com/zhanghang1989/PyTorch-Encoding, by EncNet's first author."""

from torch import Tensor

from segtrain.architecture.weights import resnet_name
from segtrain.zoo.entry import Recognised
from segtrain.zoo.names import rename

SHARED_NAMES = (
    ("pretrained.", "backbone.body."),
    ("auxlayer.conv5.0.", "auxiliary.conv.0."),
    ("auxlayer.conv5.1.", "auxiliary.conv.1."),
    ("auxlayer.conv5.4.", "auxiliary.classifier."),
)
ENCNET_NAMES = (
    *SHARED_NAMES,
    ("head.conv5.", "conv."),
    ("head.connect.", "laterals."),
    ("head.fusion.", "fusion."),
    ("head.encmodule.encoding.0.", "context.conv.0."),
    ("head.encmodule.encoding.1.", "context.conv.1."),
    ("head.encmodule.encoding.3.", "context.encoding."),
    ("head.encmodule.encoding.4.", "context.norm."),
    ("head.encmodule.fc.0.", "context.attention."),
    ("head.encmodule.selayer.", "context.presence_classifier."),
    ("head.conv6.1.", "classifier."),
)
FCN_NAMES = (
    *SHARED_NAMES,
    ("head.conv5.0.", "head.conv.0."),
    ("head.conv5.1.", "head.conv.1."),
    ("head.conv5.4.", "head.classifier."),
)
ENCODING = "head.encmodule.encoding.3.codewords"
ENCNET_CLASSIFIER, FCN_CLASSIFIER = "head.conv6.1.weight", "head.conv5.4.weight"
BACKBONES = {"ResNet-50": "resnet50s", "ResNet-101": "resnet101s", "ResNet-152": "resnet152s"}


def recognised(state: dict[str, Tensor]) -> Recognised | None:
    """What the names and shapes tell of an EncNet or FCN; None where they are of another project.

    Also of those on other backbones than ResNets with the deep stem.
    """
    resnet = resnet_name(state)
    stem_and_block = {"pretrained.conv1.6.weight", "pretrained.layer1.0.conv2.weight"}
    if not stem_and_block <= state.keys() or resnet not in BACKBONES:
        return None
    backbone = f"architecture.backbone.name={BACKBONES[resnet]}"
    auxiliary = f"architecture.auxiliary={_has(state, 'auxlayer.conv5.4.weight')}"
    if {ENCODING, ENCNET_CLASSIFIER} <= state.keys():
        lateral = f"architecture.lateral={_has(state, 'head.fusion.0.weight')}"
        return Recognised(
            f"EncNet {resnet}",
            ("architecture=encnet", backbone, lateral, auxiliary),
            len(state[ENCNET_CLASSIFIER]),
        )
    if FCN_CLASSIFIER in state:
        aligned = "architecture.align_corners=true"
        return Recognised(
            f"FCN {resnet}",
            ("architecture=fcn_torchvision", backbone, aligned, auxiliary),
            len(state[FCN_CLASSIFIER]),
        )
    return None


def renamed(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under our names; `own` are the network's."""
    return rename(state, ENCNET_NAMES if ENCODING in state else FCN_NAMES)


def _has(state: dict[str, Tensor], name: str) -> str:
    return str(name in state).lower()
