"""MMSegmentation's FCN, PSPNet, DeepLabv3, DeepLabv3+ and EncNet on ResNets, SegFormer and PIDNet.

Their `ResNetV1c` has a stem of three 3x3 convolutions, their `ResNet` torchvision's. Convolutions
with batch norm and ReLU are `<name>.conv` and `<name>.bn`. The pooled features come first among
what the ASPP joins; ours come last.
"""

import re

from torch import Tensor

from segtrain.architecture.semantic.segformer import mix_transformer_state
from segtrain.architecture.three_branches import SIZES, three_branches_state
from segtrain.architecture.weights import resnet_name
from segtrain.zoo.catalogue import entries
from segtrain.zoo.entry import Recognised
from segtrain.zoo.names import rename

Rules = tuple[tuple[str, str], ...]

# The parts of a decoding head -> the model that has just these.
MODELS = {
    frozenset({"convs", "conv_cat", "conv_seg"}): "fcn",
    frozenset({"psp_modules", "bottleneck", "conv_seg"}): "pspnet",
    frozenset({"image_pool", "aspp_modules", "bottleneck", "conv_seg"}): "deeplabv3",
    frozenset({"image_pool", "aspp_modules", "bottleneck", "c1_bottleneck", "sep_bottleneck",
               "conv_seg"}): "deeplabv3plus",
    frozenset({"bottleneck", "enc_module", "se_layer", "conv_seg"}): "encnet",
    frozenset({"convs", "fusion_conv", "conv_seg"}): "segformer",
    frozenset({"i_head", "p_head", "d_head", "p_cls_seg", "d_cls_seg", "conv_seg"}): "pidnet",
}  # fmt: skip


def normed(theirs: str, ours: str, first: int = 0) -> Rules:
    """Names of a convolution and its batch norm; ours are numbers of a sequence."""
    return ((f"{theirs}.conv.", f"{ours}.{first}."), (f"{theirs}.bn.", f"{ours}.{first + 1}."))


def separable(theirs: str, ours: str) -> Rules:
    """Names of a depthwise and a 1x1 convolution, each with its batch norm."""
    return (
        *normed(f"{theirs}.depthwise_conv", ours),
        *normed(f"{theirs}.pointwise_conv", ours, first=3),
    )


def aspp(ours: str) -> Rules:
    """Names of the ASPP's parts, without those of separable branches."""
    return (
        *normed("decode_head.image_pool.1", f"{ours}.image_pooling"),
        *(rule for n in range(4) for rule in normed(f"decode_head.aspp_modules.{n}",
                                                    f"{ours}.branches.{n}")),
        *normed("decode_head.bottleneck", f"{ours}.project"),
    )  # fmt: skip


def pid_head(theirs: str, ours: str) -> Rules:
    """Names of batch norm, convolution and batch norm."""
    return (
        (f"{theirs}.conv.bn.", f"{ours}.0."),
        (f"{theirs}.conv.conv.", f"{ours}.2."),
        (f"{theirs}.norm.", f"{ours}.3."),
    )


SHARED_NAMES: Rules = (
    *((f"backbone.stem.{n}.", f"backbone.body.conv1.{n}.") for n in (0, 1, 3, 4, 6)),
    ("backbone.stem.7.", "backbone.body.bn1."),
    ("backbone.", "backbone.body."),
    *normed("auxiliary_head.convs.0", "auxiliary.conv"),
    ("auxiliary_head.conv_seg.", "auxiliary.classifier."),
)
HEAD_NAMES: dict[str, Rules] = {
    "fcn": (
        *normed("decode_head.convs.0", "head.conv"),
        *normed("decode_head.convs.1", "head.conv", first=3),
        *normed("decode_head.conv_cat", "head.fusion"),
        ("decode_head.conv_seg.", "head.classifier."),
    ),
    "pspnet": (
        *(rule for n in range(4) for rule in normed(f"decode_head.psp_modules.{n}.1",
                                                    f"head.pyramid.reductions.{n}")),
        *normed("decode_head.bottleneck", "head.conv"),
        ("decode_head.conv_seg.", "head.classifier."),
    ),
    "deeplabv3": (*aspp("head.aspp"), ("decode_head.conv_seg.", "head.classifier.")),
    "deeplabv3plus": (
        *aspp("aspp"),
        *(rule for n in (1, 2, 3) for rule in separable(f"decode_head.aspp_modules.{n}",
                                                        f"aspp.branches.{n}")),
        *normed("decode_head.c1_bottleneck", "decoder.reduce"),
        *(rule for n in (0, 1) for rule in separable(f"decode_head.sep_bottleneck.{n}",
                                                     f"decoder.convs.{n}")),
        ("decode_head.conv_seg.", "classifier."),
    ),
    "encnet": (
        *normed("decode_head.bottleneck", "conv"),
        *normed("decode_head.enc_module.encoding_project", "context.conv"),
        ("decode_head.enc_module.encoding.0.", "context.encoding."),
        ("decode_head.enc_module.encoding.1.", "context.norm."),
        ("decode_head.enc_module.fc.0.", "context.attention."),
        ("decode_head.se_layer.", "context.presence_classifier."),
        ("decode_head.conv_seg.", "classifier."),
    ),
    "segformer": (
        *(rule for n in range(4) for rule in normed(f"decode_head.convs.{n}",
                                                    f"head.projections.{n}")),
        *normed("decode_head.fusion_conv", "head.fusion"),
        ("decode_head.conv_seg.", "head.classifier."),
    ),
    "pidnet": (
        *pid_head("decode_head.i_head", "head.conv"),
        *pid_head("decode_head.p_head", "auxiliary.semantic.conv"),
        *pid_head("decode_head.d_head", "auxiliary.boundary"),
        ("decode_head.conv_seg.", "head.classifier."),
        ("decode_head.p_cls_seg.", "auxiliary.semantic.classifier."),
        ("decode_head.d_cls_seg.", "auxiliary.boundary.5."),
    ),
}  # fmt: skip
# Blocks in the stages of a Mix Transformer, and its first channels.
MIX_TRANSFORMERS = {
    ((2, 2, 2, 2), 32): "b0", ((2, 2, 2, 2), 64): "b1", ((3, 4, 6, 3), 64): "b2",
    ((3, 4, 18, 3), 64): "b3", ((3, 8, 27, 3), 64): "b4", ((3, 6, 40, 3), 64): "b5",
}  # fmt: skip
POOLED_FIRST = ("head.aspp.project.0.weight", "aspp.project.0.weight")


def recognised(state: dict[str, Tensor]) -> Recognised | None:
    """What the names tell: the model and its ResNet, at output stride 8, as the catalogue has them.

    Other output strides have the same names and shapes. None for other models and backbones.
    """
    model = model_of(state)
    if model in BODIES:
        return _with_own_body(model, state)
    resnet = resnet_name(state)
    if model is None or resnet is None or "backbone.layer1.0.conv2.weight" not in state:
        return None
    stem = "" if "backbone.stem.0.weight" in state else "b"
    start = f"{model}_r{resnet.removeprefix('ResNet-')}{stem}-d8_"
    row = next((row for name, row in entries("mmseg").items() if name.startswith(start)), None)
    if row is None:
        return None
    architecture = row.architecture
    if not any(key.startswith("auxiliary_head.") for key in state):  # a file may be without
        architecture += ("architecture.auxiliary=false",)
    num_classes = len(state["decode_head.conv_seg.weight"])
    return Recognised(f"{row.system} {resnet}", architecture, num_classes)


def _with_own_body(model: str, state: dict[str, Tensor]) -> Recognised | None:
    """Of a model that has no ResNet below it."""
    body = BODIES[model](state)
    if body is None:
        return None
    start, title = body
    row = next(row for name, row in entries("mmseg").items() if name.startswith(f"{start}_"))
    num_classes = len(state["decode_head.conv_seg.weight"])
    return Recognised(f"{row.system}{title}", row.architecture, num_classes)


def _mix_transformer(state: dict[str, Tensor]) -> tuple[str, str] | None:
    """How its rows begin, and what follows the system in its title."""
    blocks = {tuple(key.split(".")[2:5:2]) for key in state
              if re.match(r"backbone\.layers\.\d\.1\.\d+\.norm1\.weight", key)}  # fmt: skip
    depths = tuple(sum(stage == str(n) for stage, _ in blocks) for n in range(4))
    size = MIX_TRANSFORMERS.get((depths, _width(state, "backbone.layers.0.0.projection.weight")))
    return None if size is None else (f"segformer_mit-{size}", f" MiT-{size.upper()}")


def _three_branches(state: dict[str, Tensor]) -> tuple[str, str] | None:
    channels = _width(state, "backbone.stem.0.conv.weight")
    blocks = sum(re.match(r"backbone\.stem\.2\.\d\.conv1\.conv\.weight", key) is not None
                 for key in state)  # fmt: skip
    for name, size in SIZES.items():
        if (size.channels, size.stem_blocks) == (channels, blocks):
            return name.replace("_", "-"), f"-{name[-1].upper()}"
    return None


def _width(state: dict[str, Tensor], weight: str) -> int:
    """Output channels of a convolution; 0 where it is not there."""
    return len(state.get(weight, ()))


BODIES = {"segformer": _mix_transformer, "pidnet": _three_branches}


def renamed(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under our names, with the pooled features last among what the ASPP joins.

    Counters are left out, and the auxiliary head where the network has none.

    Args:
        state: the checkpoint's tensors.
        own: those of the network that is to have them.
    """
    model = model_of(state)
    body = {k.removeprefix("backbone."): v for k, v in state.items() if k[:9] == "backbone."}
    head = {k: v for k, v in state.items() if k[:9] != "backbone."}
    shared = SHARED_NAMES
    if model == "segformer":
        state = head | {f"backbone.{k}": v for k, v in mix_transformer_state(body).items()}
    elif model == "pidnet":
        state = head | {f"backbone.{k}": v for k, v in three_branches_state(body).items()}
        shared = ()  # nothing of theirs is in a `body`
    names = shared + (HEAD_NAMES[model] if model is not None else ())
    ours = {
        key: value
        for key, value in rename(state, names).items()
        if not key.endswith("num_batches_tracked")
        and (key in own or not key.startswith("auxiliary."))
    }
    for key in POOLED_FIRST:
        if key in ours:
            ours[key] = ours[key].roll(-len(ours[key]), dims=1)  # as many outputs as of a branch
    return ours


def model_of(state: dict[str, Tensor]) -> str | None:
    """Which of the models has a decoding head of these parts; None for none of them."""
    parts = {key.split(".")[1] for key in state if key.startswith("decode_head.")}
    return MODELS.get(frozenset(parts))
