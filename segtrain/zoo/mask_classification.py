"""Mask2Former and EoMT of transformers: how they lie in files, and their sizes by their tensors."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from segtrain.zoo.layouts import QKV, Joint, Layout, alike, norms_of_maps, swin
from segtrain.zoo.sizes import STAGES, SWINS, count_of, ratio_of, sizes, written

PREFIX = "model."  # of most names in files of Mask2Former
ENCODER = "pixel_level_module.encoder"
PIXELS = "pixel_level_module.decoder"
QUERIES = "transformer_module"
SELF_ATTENTION = ".self_attention."
IN_PROJECTION = Joint(
    tuple(f"{SELF_ATTENTION}{part}." for part in "qkv"), f"{SELF_ATTENTION}in_proj_"
)
PIXEL_DECODER = {
    "input_projections.*.0": "projections.*.0", "input_projections.*.1": "projections.*.1",
    "level_embed": "level_embedding", "mask_projection": "mask_projection",
    **{f"adapter_1.{part}": f"lateral.{part}" for part in (0, 1)},
    **{f"layer_1.{part}": f"smooth.{part}" for part in (0, 1)},
}  # fmt: skip
PIXEL_LAYER = {
    "self_attn.sampling_offsets": "attention.offsets", "self_attn.value_proj": "attention.value",
    "self_attn.attention_weights": "attention.weights", "self_attn.output_proj": "attention.output",
    "self_attn_layer_norm": "norm1", "final_layer_norm": "norm2", "fc1": "mlp.0", "fc2": "mlp.2",
}  # fmt: skip
QUERY_LAYER = {
    **{f"self_attn.{part}_proj": f"self_attention.{part}" for part in "qkv"},
    **{f"cross_attn.in_proj_{leaf}": f"cross_attention.in_proj_{leaf}"
       for leaf in ("weight", "bias")},
    "self_attn.out_proj": "self_attention.out_proj",
    "cross_attn.out_proj": "cross_attention.out_proj", "self_attn_layer_norm": "self_norm",
    "cross_attn_layer_norm": "cross_norm", "final_layer_norm": "mlp_norm",
    "fc1": "mlp.0", "fc2": "mlp.2",
}  # fmt: skip
EOMT = {
    "query.weight": "query_features", "class_predictor": "classifier",
    "attn_mask_probs": "mask_probability", "layernorm": "backbone.body.norm",
    "embeddings.cls_token": "backbone.body.cls_token",
    "embeddings.register_tokens": "backbone.body.reg_token",
    **{f"mask_head.fc{number + 1}": f"mask_mlp.{2 * number}" for number in range(3)},
    **{f"upscale_block.block.*.{theirs}": f"upscale.*.{own}" for theirs, own in
       (("conv1", "transposed"), ("conv2", "depthwise"), ("layernorm2d", "norm"))},
}  # fmt: skip
EOMT_BLOCK = {
    "norm1": "norm1", "norm2": "norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
    "attention.out_proj": "attn.proj", "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    **{f"attention.{part}_proj": f"attn.{part}" for part in "qkv"},
}  # fmt: skip
DINOV3_BLOCK = {
    "norm1": "norm1", "norm2": "norm2", "mlp.up_proj": "mlp.fc1", "mlp.down_proj": "mlp.fc2",
    "attention.o_proj": "attn.proj", "layer_scale1.lambda1": "gamma_1",
    "layer_scale2.lambda1": "gamma_2",
    **{f"attention.{part}_proj.weight": f"attn.{part}.weight" for part in "qkv"},
    **{f"attention.{part}_proj.bias": f"attn.{part}_bias" for part in "qv"},
}  # fmt: skip
PATCHES = "backbone.body.patch_embed.proj"
POSITIONS = "backbone.body.pos_embed"


def _mask2former() -> Iterator[tuple[str, str, str]]:
    yield from alike(PIXEL_DECODER, PIXELS, "pixel_decoder")
    yield from alike(PIXEL_LAYER, f"{PIXELS}.encoder.layers.*", "pixel_decoder.layers.*")
    yield from alike(QUERY_LAYER, f"{QUERIES}.decoder.layers.*", "decoder.*")
    head = {
        f"{QUERIES}.queries_embedder.weight": "query_positions",
        f"{QUERIES}.queries_features.weight": "query_features",
        f"{QUERIES}.level_embed.weight": "level_embedding",
        f"{QUERIES}.decoder.layernorm": "norm",
        "class_predictor": "classifier",
    }
    embedder = f"{QUERIES}.decoder.mask_predictor.mask_embedder"
    head |= {f"{embedder}.{number}.0": f"mask_mlp.{2 * number}" for number in range(3)}
    for theirs, own in head.items():
        yield theirs, theirs, own


def _resnet() -> Iterator[tuple[str, str, str]]:
    """A ResNet with bottlenecks, below Mask2Former."""
    yield from alike({"convolution": "conv1", "normalization": "bn1"},
                     f"{ENCODER}.embedder.embedder", "backbone.body")  # fmt: skip
    for stage in STAGES:
        block = {"shortcut.convolution": "downsample.0", "shortcut.normalization": "downsample.1"}
        for number in range(3):
            block |= {f"layer.{number}.convolution": f"conv{number + 1}",
                      f"layer.{number}.normalization": f"bn{number + 1}"}  # fmt: skip
        yield from alike(block, f"{ENCODER}.encoder.stages.{stage}.layers.*",
                         f"backbone.body.layer{stage + 1}.*")  # fmt: skip


def _eomt(block: Mapping[str, str], rest: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    for theirs, own in {**EOMT, **rest}.items():
        yield theirs, theirs, own
    yield from alike(block, "layers.*", "backbone.body.blocks.*")


LAYOUTS = {
    "mask2former_swin": Layout(
        (*_mask2former(), *swin(ENCODER), *norms_of_maps(ENCODER)), (QKV, IN_PROJECTION)
    ),
    "mask2former_resnet": Layout((*_mask2former(), *_resnet()), (IN_PROJECTION,)),
    "eomt": Layout(
        tuple(_eomt(EOMT_BLOCK, {"embeddings.patch_embeddings.projection": PATCHES,
                                 "embeddings.position_embeddings.weight": POSITIONS})),
        (QKV,),
    ),
    "eomt_dinov3": Layout(
        tuple(_eomt(DINOV3_BLOCK, {"embeddings.patch_embeddings": PATCHES})), (QKV,)
    ),
}  # fmt: skip
SYSTEMS = {kind: "EoMT" if kind.startswith("eomt") else "Mask2Former" for kind in LAYOUTS}
# The sizes of the papers, by which timm's models are named; others are told one by one.
RESNETS = {"resnet50.tv_in1k": [3, 4, 6, 3], "resnet101.tv_in1k": [3, 4, 23, 3]}
RESNET_WIDTHS = [64, 128, 256, 512]
PLAIN = {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
BODIES = {"eomt": "vit_{}_patch14_reg4_dinov2", "eomt_dinov3": "vit_{}_patch16_dinov3_qkvb"}
LEVELS, POINTS = 3, 4  # of deformable attention
HEAD_WIDTH = 64  # of plain transformers, where nothing says it
EPSILON = 1e-6  # of their layer norms, where nothing says it
EPSILONS = {"eomt": 1e-6, "eomt_dinov3": 1e-5}  # of timm's bodies


def kind_of(state: Mapping[str, Tensor]) -> str | None:
    """Which of LAYOUTS a state dict of transformers' is in; None for other names."""
    names = {name.removeprefix(PREFIX) for name in state}
    if f"{QUERIES}.queries_embedder.weight" in names:
        is_resnet = f"{ENCODER}.embedder.embedder.convolution.weight" in names
        return "mask2former_resnet" if is_resnet else "mask2former_swin"
    if not {"query.weight", "mask_head.fc1.weight"} <= names:
        return None
    return "eomt_dinov3" if "layers.0.attention.o_proj.weight" in names else "eomt"


def num_classes(ours: Mapping[str, Tensor]) -> int:
    """Classes of which queries are; the classifier says besides that a query is of none."""
    return len(ours["classifier.bias"]) - 1


def with_grid(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with position embeddings as timm has them, (1, cells, C)."""
    if POSITIONS not in ours:
        return ours
    return ours | {POSITIONS: ours[POSITIONS][None]}


def told_by_tensors(kind: str, ours: Mapping[str, Tensor]) -> dict[str, Any]:
    """Settings of the network above its body; `heads` of EoMT's body are a guess."""
    if kind.startswith("eomt"):
        width = len(ours["backbone.body.norm.weight"])
        return {
            "width": width,
            "depth": count_of(ours, "backbone.body.blocks"),
            "heads": max(1, width // HEAD_WIDTH),
            "mlp_ratio": ratio_of(ours, "backbone.body.blocks.0.mlp.fc1.weight"),
            "patch": ours[f"{PATCHES}.weight"].shape[-1],
            "num_queries": len(ours["query_features"]),
            "query_blocks": len(ours["mask_probability"]),
        }
    offsets = len(ours["pixel_decoder.layers.0.attention.offsets.bias"])
    return {
        "channels": len(ours["norm.weight"]),
        "heads": offsets // (LEVELS * POINTS * 2),
        "num_queries": len(ours["query_features"]),
        "encoder_layers": count_of(ours, "pixel_decoder.layers"),
        "encoder_width": len(ours["pixel_decoder.layers.0.mlp.0.bias"]),
        "decoder_layers": count_of(ours, "decoder"),
        "decoder_width": len(ours["decoder.0.mlp.0.bias"]),
    }


def architecture(
    kind: str, ours: Mapping[str, Tensor], known: Mapping[str, Any]
) -> tuple[str, tuple[str, ...]]:
    """What the backbone is called, and the overrides that make the network.

    Args:
        kind: one of LAYOUTS.
        ours: its tensors, by our names.
        known: settings that are known otherwise; they win. `heads`, the `epsilon` of layer norms,
            and `grid`, rows and columns of position embeddings.
    """
    found = told_by_tensors(kind, ours)
    if kind.startswith("eomt"):
        return _plain(kind, ours, found | known)
    overrides = [f"architecture.{key}={value}" for key, value in found.items()]
    if kind == "mask2former_swin":
        body = sizes("swin", ours)
        name = next((name for name, own in SWINS.items() if own == body), None)
        chosen, standard = "swin_tiny", next(iter(SWINS))
    else:
        stages = [f"backbone.body.layer{stage + 1}" for stage in STAGES]
        body = {"layers": [count_of(ours, stage) for stage in stages],
                "channels": [len(ours[f"{stage}.0.bn1.weight"]) for stage in stages]}  # fmt: skip
        named = {name: {"layers": depths, "channels": RESNET_WIDTHS}
                 for name, depths in RESNETS.items()}  # fmt: skip
        name = next((name for name, own in named.items() if own == body), None)
        chosen, standard = "resnet50_fpn", next(iter(RESNETS))
    overrides = ["architecture=mask2former", f"architecture/backbone={chosen}", *overrides,
                 f"architecture.backbone.name={name or standard}"]  # fmt: skip
    if name is None:
        overrides += [f"+architecture.backbone.timm_arguments.{key}={written(value)}"
                      for key, value in body.items()]  # fmt: skip
    return name or f"{chosen.partition('_')[0]} of another size", tuple(overrides)


def _plain(kind: str, ours: Mapping[str, Tensor], found: Mapping[str, Any]) -> tuple:
    """As `architecture`, of EoMT."""
    own = found["width"], found["depth"], found["heads"]
    size = next((size for size, known in PLAIN.items() if known == own), None)
    if found["mlp_ratio"] != 4:
        size = None
    name = BODIES[kind].format(size or "large")
    overrides = ["architecture=eomt", f"architecture.backbone.name={name}",
                 f"architecture.backbone.patch_size={found['patch']}",
                 f"architecture.num_queries={found['num_queries']}",
                 f"architecture.query_blocks={found['query_blocks']}"]  # fmt: skip
    if POSITIONS in ours:
        cells = ours[POSITIONS].shape[1]
        rows, columns = found.get("grid") or (round(cells**0.5),) * 2
        if rows * columns != cells:
            raise ValueError(f"{cells} position embeddings")
        sides = [rows * found["patch"], columns * found["patch"]]
        overrides.append(f"architecture.backbone.timm_arguments.img_size={written(sides)}")
    else:
        overrides.append("~architecture.backbone.timm_arguments.img_size")
    epsilon = found.get("epsilon", EPSILON)
    if epsilon != EPSILONS[kind]:
        overrides.append(f"architecture.backbone.norm_epsilon={epsilon}")
    if size is None:
        settings = {"embed_dim": "width", "depth": "depth", "num_heads": "heads",
                    "mlp_ratio": "mlp_ratio"}  # fmt: skip
        overrides += [f"+architecture.backbone.timm_arguments.{key}={found[value]}"
                      for key, value in settings.items()]  # fmt: skip
    return name if size else f"{name} of another size", tuple(overrides)
