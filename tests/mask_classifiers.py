"""Networks that classify masks beside those of transformers: whose tensors are which of ours."""

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    EomtConfig,
    EomtDinov3Config,
    EomtDinov3ForUniversalSegmentation,
    EomtForUniversalSegmentation,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    PretrainedConfig,
)

from segtrain.contracts import Queries

STAGES = ["stage1", "stage2", "stage3", "stage4"]

# transformers' names -> ours; the first column are patterns of `re.sub`, used one after another.
RESNET = [
    (r"^embedder\.embedder\.convolution", "conv1"),
    (r"^embedder\.embedder\.normalization", "bn1"),
    (r"^encoder\.stages\.(\d)\.layers", lambda found: f"layer{int(found[1]) + 1}"),
    (r"shortcut\.convolution", "downsample.0"),
    (r"shortcut\.normalization", "downsample.1"),
    (r"\.layer\.(\d)\.convolution", lambda found: f".conv{int(found[1]) + 1}"),
    (r"\.layer\.(\d)\.normalization", lambda found: f".bn{int(found[1]) + 1}"),
    (r"^", "body."),
]
SWIN = [
    (r"^swin\.embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"^swin\.embeddings\.norm", "patch_embed.norm"),
    (r"^swin\.encoder\.layers\.(\d)", r"layers_\1"),
    (r"layers_(\d)\.downsample", lambda found: f"layers_{int(found[1]) + 1}.downsample"),
    (r"attention\.", "attn."),
    (r"relative_position_bias\.", ""),
    (r"o_proj", "proj"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"^(patch_embed|layers_)", r"body.\1"),
    (r"^hidden_states_norms\.stage(\d)", lambda found: f"norms.{int(found[1]) - 1}"),
]
MASK2FORMER = [
    (r"^model\.pixel_level_module\.decoder\.", "pixel_decoder."),
    (r"pixel_decoder\.level_embed", "pixel_decoder.level_embedding"),
    (r"pixel_decoder\.input_projections", "pixel_decoder.projections"),
    (r"pixel_decoder\.adapter_1", "pixel_decoder.lateral"),
    (r"pixel_decoder\.layer_1", "pixel_decoder.smooth"),
    (r"pixel_decoder\.encoder\.layers", "pixel_decoder.layers"),
    (r"(pixel_decoder.*)self_attn\.", r"\1attention."),
    (r"sampling_offsets", "offsets"),
    (r"attention_weights", "weights"),
    (r"value_proj", "value"),
    (r"output_proj", "output"),
    (r"(pixel_decoder.*)self_attn_layer_norm", r"\1norm1"),
    (r"(pixel_decoder.*)final_layer_norm", r"\1norm2"),
    (r"fc1", "mlp.0"),
    (r"fc2", "mlp.2"),
    (r"^model\.transformer_module\.queries_embedder\.weight", "query_positions"),
    (r"^model\.transformer_module\.queries_features\.weight", "query_features"),
    (r"^model\.transformer_module\.level_embed\.weight", "level_embedding"),
    (r"^model\.transformer_module\.decoder\.layers", "decoder"),
    (r"^model\.transformer_module\.decoder\.layernorm", "norm"),
    (r"^model\.transformer_module\.decoder\.mask_predictor\.mask_embedder\.(\d)\.0",
     lambda found: f"mask_mlp.{2 * int(found[1])}"),
    (r"cross_attn_layer_norm", "cross_norm"),
    (r"self_attn_layer_norm", "self_norm"),
    (r"final_layer_norm", "mlp_norm"),
    (r"(cross|self)_attn\.", r"\1_attention."),
    (r"^class_predictor", "classifier"),
]  # fmt: skip
EOMT = [
    (r"^query\.weight", "query_features"),
    (r"^class_predictor", "classifier"),
    (r"^mask_head\.fc(\d)", lambda found: f"mask_mlp.{2 * int(found[1]) - 2}"),
    (r"^upscale_block\.block\.(\d)\.conv1", r"upscale.\1.transposed"),
    (r"^upscale_block\.block\.(\d)\.conv2", r"upscale.\1.depthwise"),
    (r"^upscale_block\.block\.(\d)\.layernorm2d", r"upscale.\1.norm"),
    (r"^attn_mask_probs", "mask_probability"),
    (r"^layers\.", "backbone.body.blocks."),
    (r"^embeddings\.", "backbone.body."),
    (r"^layernorm\.", "backbone.body.norm."),
    (r"patch_embeddings\.projection", "patch_embed.proj"),
    (r"position_embeddings\.weight", "pos_embed"),
    (r"register_tokens", "reg_token"),
    (r"attention\.", "attn."),
    (r"out_proj", "proj"),
    (r"layer_scale(\d)\.lambda1", r"ls\1.gamma"),
]
EOMT_DINOV3 = [
    (r"layer_scale(\d)\.lambda1", r"gamma_\1"),
    (r"patch_embeddings\.", "patch_embed.proj."),
    (r"o_proj", "proj"),
    (r"up_proj", "fc1"),
    (r"down_proj", "fc2"),
    *EOMT,
]


def renamed(state: dict[str, Tensor], rules: list) -> dict[str, Tensor]:
    named = {}
    for name, tensor in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        named[name] = tensor
    return named


def joined(state: dict[str, Tensor], whole: str) -> dict[str, Tensor]:
    """Projections of queries, keys and values as one tensor, `whole` with `.weight` or `.bias`."""
    found = {}
    for name, tensor in state.items():
        if ".q_proj." in name:
            parts = [state[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            name, tensor = re.sub(r"q_proj\.", whole, name), torch.cat(parts)
        if ".k_proj." not in name and ".v_proj." not in name:
            found[name] = tensor
    return found


def mask2former(backbone: PretrainedConfig, **settings) -> Mask2FormerForUniversalSegmentation:
    """Theirs counts the prediction before the first layer as a layer."""
    config = Mask2FormerConfig(
        backbone_config=backbone, output_auxiliary_logits=True, **{"num_labels": 150} | settings
    )
    return Mask2FormerForUniversalSegmentation(config)


def load_mask2former(ours: nn.Module, reference: nn.Module) -> None:
    """The tensors of transformers' network into ours."""
    prefix = "model.pixel_level_module.encoder."
    state = {k: v for k, v in reference.state_dict().items() if not k.startswith("criterion.")}
    body = {k.removeprefix(prefix): state.pop(k) for k in list(state) if k.startswith(prefix)}
    is_swin = any(k.startswith("swin.") for k in body)
    body = {k: v for k, v in body.items() if not k.startswith("swin.layernorm")}
    body = renamed(joined(body, "qkv."), SWIN if is_swin else RESNET)
    ours.load_state_dict(
        {f"backbone.{k}": v for k, v in body.items()}
        | renamed(joined(state, "in_proj_"), MASK2FORMER)
    )


def eomt(dinov3: bool = False, **settings) -> EomtForUniversalSegmentation:
    settings = {"num_labels": 150} | settings
    if dinov3:
        return EomtDinov3ForUniversalSegmentation(EomtDinov3Config(**settings))
    return EomtForUniversalSegmentation(EomtConfig(**settings))


def load_eomt(ours: nn.Module, reference: nn.Module) -> None:
    """The tensors of transformers' network into ours.

    DINOv3's biases of queries and values are zero in all published weights, and timm has none: they
    are set to zero there.
    """
    dinov3 = isinstance(reference, EomtDinov3ForUniversalSegmentation)
    state = {k: v for k, v in reference.state_dict().items() if not k.startswith("criterion.")}
    if dinov3:
        for name in [k for k in state if k.endswith(("q_proj.bias", "v_proj.bias"))]:
            state.pop(name).zero_()
    named = renamed(joined(state, "qkv."), EOMT_DINOV3 if dinov3 else EOMT)
    if "backbone.body.pos_embed" in named:
        named["backbone.body.pos_embed"] = named["backbone.body.pos_embed"][None]
    ours.load_state_dict(named)


def random_image(*size: int, number: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (number, 3, *size), dtype=torch.uint8, generator=generator)


def padded(image: Tensor, side: int) -> Tensor:
    """A normalised image, at the right and the bottom filled up with the mean colour."""
    bottom, right = (-length % side for length in image.shape[2:])
    return F.pad(image, (0, right, 0, bottom))


def over_image(masks: Tensor, image: Tensor, side: int) -> Tensor:
    """Masks of the padded image as the published code brings them to the image's size."""
    whole = padded(image, side).shape[2:]
    masks = F.interpolate(masks, whole, mode="bilinear", align_corners=False)
    return masks[:, :, : image.shape[2], : image.shape[3]]


def assert_same(ours: Queries, theirs: Queries, limit: float) -> None:
    """Classes and masks of every query, relative to the logits' deviation."""
    for key in ("class_logits", "mask_logits"):
        assert ours[key].shape == theirs[key].shape
        assert (ours[key] - theirs[key]).abs().max() <= limit * theirs[key].std(), key
