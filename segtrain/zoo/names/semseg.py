"""PSPNet of github.com/hszhao/semseg, its authors' own PyTorch code."""

from torch import Tensor

from segtrain.architecture.weights import resnet_name
from segtrain.zoo.entry import Recognised
from segtrain.zoo.names import rename

NAMES = (
    # theirs -> ours
    ("layer0.0.", "backbone.body.conv1.0."),
    ("layer0.1.", "backbone.body.conv1.1."),
    ("layer0.3.", "backbone.body.conv1.3."),
    ("layer0.4.", "backbone.body.conv1.4."),
    ("layer0.6.", "backbone.body.conv1.6."),
    ("layer0.7.", "backbone.body.bn1."),
    *((f"layer{number}.", f"backbone.body.layer{number}.") for number in (1, 2, 3, 4)),
    *(
        (f"ppm.features.{level}.{theirs}.", f"head.pyramid.reductions.{level}.{ours}.")
        for level in range(4)
        for theirs, ours in ((1, 0), (2, 1))
    ),
    ("cls.0.", "head.conv.0."),
    ("cls.1.", "head.conv.1."),
    ("cls.4.", "head.classifier."),
    ("aux.0.", "auxiliary.conv.0."),
    ("aux.1.", "auxiliary.conv.1."),
    ("aux.4.", "auxiliary.classifier."),
)
BACKBONES = {"ResNet-50": "resnet50s", "ResNet-101": "resnet101s"}


def recognised(state: dict[str, Tensor]) -> Recognised | None:
    """The PSPNet that a state dict of semseg's is of; None for other names."""
    resnet = resnet_name(state)
    if resnet not in BACKBONES or not {"layer0.0.weight", "cls.4.bias"} <= state.keys():
        return None
    overrides = ("architecture=pspnet", f"architecture.backbone.name={BACKBONES[resnet]}",
                 f"architecture.auxiliary={str('aux.4.bias' in state).lower()}")  # fmt: skip
    return Recognised(f"PSPNet {resnet}", overrides, len(state["cls.4.bias"]))


def renamed(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under our names; `own` are those of the network that is to have them."""
    return rename(state, NAMES)
