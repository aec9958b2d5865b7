"""MMSegmentation's semantic networks; their backbones are in `segtrain.zoo.mmseg_bodies`.

Convolutions with batch norm and ReLU are `<name>.conv` and `<name>.bn`. The pooled features come
first among what the ASPP joins; ours come last.
"""

import re

from torch import Tensor

from segtrain.zoo.catalogue import entries
from segtrain.zoo.entry import Recognised
from segtrain.zoo.mmseg_bodies import body_of, renamed_body
from segtrain.zoo.names import rename

Rules = tuple[tuple[str, str], ...]

# How rows of a model begin, by the name of the backbone; others have the output stride too.
STARTS = {"segformer": "segformer_{}_", "pidnet": "pidnet-{}_", "sem_fpn": "fpn_{}_",
          "ocrnet": "ocrnet_{}_", "upernet": "upernet_{}_",
          "mask2former": "mask2former_{}_"}  # fmt: skip
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
    frozenset({"scale_heads", "conv_seg"}): "sem_fpn",
    frozenset({"convs", "bottleneck", "object_context_block", "conv_seg"}): "ocrnet",
    frozenset({"psp_modules", "bottleneck", "lateral_convs", "fpn_convs", "fpn_bottleneck",
               "conv_seg"}): "upernet",
    frozenset({"pixel_decoder", "transformer_decoder", "query_embed", "query_feat", "level_embed",
               "cls_embed", "mask_embed"}): "mask2former",
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


def grouped(theirs: str, ours: str) -> Rules:
    """Names of a convolution and its group norm."""
    return ((f"{theirs}.conv.", f"{ours}.0."), (f"{theirs}.gn.", f"{ours}.1."))


def attending(theirs: str, ours: str, names: dict[str, str]) -> Rules:
    """Names of a layer with attention, and of the linear layers that all have."""
    names = {"ffn.layers.0.0": "mlp.0", "ffn.layers.1": "mlp.2"} | names
    return tuple((f"{theirs}.{name}.", f"{ours}.{own}.") for name, own in names.items())


PIXELS, QUERIES = "decode_head.pixel_decoder", "decode_head.transformer_decoder"
PIXEL_LAYER = {
    "self_attn.sampling_offsets": "attention.offsets",
    "self_attn.attention_weights": "attention.weights", "self_attn.value_proj": "attention.value",
    "self_attn.output_proj": "attention.output", "norms.0": "norm1", "norms.1": "norm2",
}  # fmt: skip
QUERY_LAYER = {
    "self_attn.attn": "self_attention", "cross_attn.attn": "cross_attention",
    "norms.0": "cross_norm", "norms.1": "self_norm", "norms.2": "mlp_norm",
}  # fmt: skip
PIXEL_LAYERS, QUERY_LAYERS = 6, 9  # of all its rows
AUXILIARY_NAMES: Rules = (
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
    "sem_fpn": (
        *((f"neck.lateral_convs.{n}.conv.", f"pyramid.laterals.{n}.") for n in range(4)),
        *((f"neck.fpn_convs.{n}.conv.", f"pyramid.outputs.{n}.") for n in range(4)),
        *(rule for n in range(4) for k in (0, 2, 4)
          for rule in normed(f"decode_head.scale_heads.{n}.{k}", f"scale_heads.{n}.{k}")),
        ("decode_head.conv_seg.", "classifier."),
    ),
    "ocrnet": (
        *normed("decode_head.0.convs.0", "regions.conv"),
        ("decode_head.0.conv_seg.", "regions.classifier."),
        *normed("decode_head.1.bottleneck", "conv"),
        *(rule for part in ("query", "key") for n in (0, 1)
          for rule in normed(f"decode_head.1.object_context_block.{part}_project.{n}",
                             f"attention.{part}.{n}")),
        *(rule for part in ("value", "out")
          for rule in normed(f"decode_head.1.object_context_block.{part}_project",
                             f"attention.{part}.0")),
        *normed("decode_head.1.object_context_block.bottleneck", "attention.fusion"),
        ("decode_head.1.conv_seg.", "classifier."),
    ),
    "upernet": (
        *(rule for n in range(4) for rule in normed(f"decode_head.psp_modules.{n}.1",
                                                    f"head.pyramid.reductions.{n}")),
        *normed("decode_head.bottleneck", "head.bottleneck"),
        *(rule for n in range(3) for rule in normed(f"decode_head.lateral_convs.{n}",
                                                    f"head.laterals.{n}")),
        *(rule for n in range(3) for rule in normed(f"decode_head.fpn_convs.{n}",
                                                    f"head.smooth.{n}")),
        *normed("decode_head.fpn_bottleneck", "head.fusion"),
        ("decode_head.conv_seg.", "head.classifier."),
    ),
    "mask2former": (
        *(rule for n in range(3) for rule in grouped(f"{PIXELS}.input_convs.{n}",
                                                     f"pixel_decoder.projections.{n}")),
        *(rule for n in range(PIXEL_LAYERS)
          for rule in attending(f"{PIXELS}.encoder.layers.{n}", f"pixel_decoder.layers.{n}",
                                PIXEL_LAYER)),
        (f"{PIXELS}.level_encoding.weight", "pixel_decoder.level_embedding"),
        *grouped(f"{PIXELS}.lateral_convs.0", "pixel_decoder.lateral"),
        *grouped(f"{PIXELS}.output_convs.0", "pixel_decoder.smooth"),
        (f"{PIXELS}.mask_feature.", "pixel_decoder.mask_projection."),
        *(rule for n in range(QUERY_LAYERS)
          for rule in attending(f"{QUERIES}.layers.{n}", f"decoder.{n}", QUERY_LAYER)),
        (f"{QUERIES}.post_norm.", "norm."),
        ("decode_head.query_embed.weight", "query_positions"),
        ("decode_head.query_feat.weight", "query_features"),
        ("decode_head.level_embed.weight", "level_embedding"),
        ("decode_head.cls_embed.", "classifier."),
        ("decode_head.mask_embed.", "mask_mlp."),
    ),
}  # fmt: skip
# As MMSegmentation calls it.
WITHOUT_AUXILIARY = ("segformer", "pidnet", "sem_fpn", "ocrnet", "mask2former")
MASK2FORMERS = {
    "r50b": "r50", "r101b": "r101", "swin_tiny_patch4_window7": "swin-t",
    "swin_small_patch4_window7": "swin-s", "swin_base_patch4_window12": "swin-b-in22k-384x384-pre",
    "swin_large_patch4_window12": "swin-l-in22k-384x384-pre",
}  # fmt: skip
POOLED_FIRST = ("head.aspp.project.0.weight", "aspp.project.0.weight")


def recognised(state: dict[str, Tensor]) -> Recognised | None:
    """What the names tell: the model and its backbone, as the catalogue's first such row has them.

    ResNets have output stride 8 then where rows differ in it: others have the same names and
    shapes. None for other models and backbones.
    """
    model, body = model_of(state), body_of(state)
    if model is None or body is None:
        return None
    name = body.row
    if model == "mask2former":  # in whose rows backbones have other names
        name = MASK2FORMERS.get(body.row, body.row)
    start = STARTS.get(model, f"{model}_{{}}-d8_").format(name)
    row = next((row for name, row in entries("mmseg").items() if name.startswith(start)), None)
    if row is None:
        return None
    architecture = row.architecture
    has_auxiliary = any(key.startswith("auxiliary_head.") for key in state)
    if model not in WITHOUT_AUXILIARY and not has_auxiliary:  # a file may be without
        architecture += ("architecture.auxiliary=false",)
    if model == "mask2former":
        count = len(state["decode_head.cls_embed.weight"]) - 1  # besides: a query of no class
    else:
        count = len(state[next(key for key in state if key.endswith("conv_seg.weight"))])
    return Recognised(f"{row.system} {body.title}", architecture, count)


def renamed(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under our names, with the pooled features last among what the ASPP joins.

    Counters are left out, and the auxiliary head where the network has none.

    Args:
        state: the checkpoint's tensors.
        own: those of the network that is to have them.
    """
    model = model_of(state)
    head = {key: value for key, value in state.items() if not key.startswith("backbone.")}
    names = AUXILIARY_NAMES + (HEAD_NAMES[model] if model is not None else ())
    ours = {
        key: value
        for key, value in (renamed_body(state) | rename(head, names)).items()
        if not key.endswith("num_batches_tracked")
        and (key in own or not key.startswith("auxiliary."))
    }
    for key in POOLED_FIRST:
        if key in ours:
            ours[key] = ours[key].roll(-len(ours[key]), dims=1)  # as many outputs as of a branch
    return ours


def model_of(state: dict[str, Tensor]) -> str | None:
    """Which of the models has a decoding head of these parts; None for none of them."""
    parts = {
        re.sub(r"^decode_head\.(\d\.)?", "", key).split(".")[0]  # numbered where there are two
        for key in state
        if key.startswith("decode_head.")
    }
    return MODELS.get(frozenset(parts))
