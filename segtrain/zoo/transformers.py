"""What the configuration files of transformers say of a network, and such files for ours."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from segtrain.errors import UserError
from segtrain.zoo import mask_classification
from segtrain.zoo.names import hf
from segtrain.zoo.sizes import architecture, sizes

# Settings that have one value in the networks here.
FIXED: dict[str, dict[str, Any]] = {
    "segformer": {
        "num_channels": 3, "num_encoder_blocks": 4, "patch_sizes": [7, 3, 3, 3],
        "strides": [4, 2, 2, 2], "hidden_act": "gelu", "reshape_last_stage": True,
    },
    "upernet": {"auxiliary_num_convs": 1, "auxiliary_concat_input": False},
    "convnext": {"num_channels": 3, "patch_size": 4, "num_stages": 4, "hidden_act": "gelu"},
    "swin": {
        "num_channels": 3, "patch_size": 4, "hidden_act": "gelu", "qkv_bias": True,
        "use_absolute_embeddings": False, "layer_norm_eps": 1e-5,
    },
}  # fmt: skip
# The same of networks that classify masks, and of a body that is read with these alone.
FIXED_OF_MASKS: dict[str, dict[str, Any]] = {
    "mask2former": {
        "pre_norm": False, "enforce_input_projection": False, "common_stride": 4,
        "feature_strides": [4, 8, 16, 32], "activation_function": "relu",
    },
    "resnet": {
        "num_channels": 3, "hidden_act": "relu", "layer_type": "bottleneck", "embedding_size": 64,
        "downsample_in_first_stage": False, "downsample_in_bottleneck": False,
    },
    "eomt": {
        "num_channels": 3, "hidden_act": "gelu", "use_swiglu_ffn": False, "num_register_tokens": 4,
    },
    "eomt_dinov3": {
        "num_channels": 3, "hidden_act": "gelu", "use_gated_mlp": False, "num_register_tokens": 4,
        "query_bias": True, "key_bias": False, "value_bias": True, "proj_bias": True,
        "mlp_bias": True, "rope_theta": 100.0,
    },
}  # fmt: skip
STAGES = [f"stage{number}" for number in range(1, 5)]
# Theirs -> timm's, of the sizes that tensors tell.
SIZES = {
    "segformer": {
        "depths": "depths", "hidden_sizes": "embed_dims", "num_attention_heads": "num_heads",
        "sr_ratios": "sr_ratios", "mlp_ratios": "mlp_ratios",
    },
    "convnext": {"depths": "depths", "hidden_sizes": "dims"},
    "swin": {
        "depths": "depths", "embed_dim": "embed_dim", "num_heads": "num_heads",
        "window_size": "window_size", "mlp_ratio": "mlp_ratio",
    },
}  # fmt: skip
BINS = [1, 2, 3, 6]  # of the pyramid pooling, where nothing says it


class Network(NamedTuple):
    """What a configuration and its tensors describe.

    Attributes:
        overrides: that make the network, as in `Entry`.
        classes: names, in the order of the classifier's rows.
    """

    overrides: tuple[str, ...]
    classes: tuple[str, ...]


def network_of(config: Mapping[str, Any], state: Mapping[str, Tensor], origin: str) -> Network:
    """The network that a `config.json` of transformers describes, whose tensors are there.

    Sizes are those of the tensors; what the configuration says otherwise is refused.

    Args:
        config: the file's content.
        state: the tensors, by their names.
        origin: what messages call the file.

    Raises:
        UserError: it contradicts its tensors, or describes a network that is not known here.
    """
    kind = hf.kind_of(state)
    if config["model_type"] in FIXED_OF_MASKS:
        return _of_masks(config, kind, hf.renamed(dict(state), {}), origin)
    is_segformer = config["model_type"] == "segformer"
    body = config if is_segformer else config.get("backbone_config")
    told = body.get("model_type") if isinstance(body, Mapping) else None
    if kind is None or told != kind:
        tensors = "none that is known" if kind is None else kind
        raise UserError(f"{origin}: describes {config['model_type']} of {str(told)[:80]}, its "
                        f"tensors are of {tensors}; expected {', '.join(hf.LAYOUTS)}")  # fmt: skip
    if not is_segformer:
        _require(config, FIXED["upernet"], origin)
        body = {"out_features": STAGES} | body
        _require(body, {"out_features": STAGES}, f"{origin}, backbone_config")
    _require(body, FIXED[kind], origin)
    ours = hf.renamed(dict(state), {})
    try:
        found = sizes(kind, ours)
        count = len(ours["head.classifier.bias"])
    except hf.MALFORMED as error:
        raise UserError(f"{origin}: its tensors are not those of {kind} ({error})") from None
    known = {} if not is_segformer else {"num_heads": _heads(body, found, origin)}
    _require(body, {theirs: (found | known)[own] for theirs, own in SIZES[kind].items()}, origin)
    _, overrides = architecture(kind, ours, known)
    if not is_segformer:
        overrides += (f"architecture.bins={_bins(config, origin)}".replace(" ", ""),)
    return Network(overrides, _classes(config, count, origin))


def _of_masks(
    config: Mapping[str, Any], kind: str | None, ours: Mapping[str, Tensor], origin: str
) -> Network:
    """As `network_of`, of a network that classifies masks; `ours` are its tensors, renamed."""
    told = config["model_type"]
    body = config.get("backbone_config") if told == "mask2former" else config
    if told == "mask2former":
        told = f"{told}_{body.get('model_type') if isinstance(body, Mapping) else None}"
    if kind is None or told != kind:
        tensors = "none that is known" if kind is None else kind
        raise UserError(f"{origin}: describes {told[:80]}, its tensors are of {tensors}; expected "
                        f"{', '.join(mask_classification.LAYOUTS)}")  # fmt: skip
    _require(config, FIXED_OF_MASKS[config["model_type"]], origin)
    try:
        found = mask_classification.told_by_tensors(kind, ours)
        if kind.startswith("eomt"):
            known = _known_of_plain(config, found, origin)
        else:
            known = {}
            _require(config, {
                **dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim"),
                                found["channels"]),
                "num_attention_heads": found["heads"], "num_queries": found["num_queries"],
                "encoder_layers": found["encoder_layers"],
                "encoder_feedforward_dim": found["encoder_width"],
                "decoder_layers": found["decoder_layers"] + 1,
                "dim_feedforward": found["decoder_width"],
            }, origin)  # fmt: skip
            _require({"out_features": STAGES} | body, {"out_features": STAGES}, origin)
            own = FIXED["swin"] if kind.endswith("swin") else FIXED_OF_MASKS["resnet"]
            _require(body, own, f"{origin}, backbone_config")
            if kind.endswith("swin"):
                inside = sizes("swin", ours)
                names = SIZES["swin"].items()
                _require(body, {theirs: inside[own] for theirs, own in names}, origin)
        _, overrides = mask_classification.architecture(kind, ours, known)
        count = mask_classification.num_classes(ours)
    except hf.MALFORMED as error:
        raise UserError(f"{origin}: its tensors are not those of {kind} ({error})") from None
    return Network(overrides, _classes(config, count, origin))


def _known_of_plain(config: Mapping[str, Any], found: Mapping[str, Any], origin: str) -> dict:
    """What the tensors of EoMT do not tell: heads, the grid of positions, epsilons."""
    _require(config, {
        "hidden_size": found["width"], "num_hidden_layers": found["depth"],
        "patch_size": found["patch"], "num_queries": found["num_queries"],
        "num_blocks": found["query_blocks"],
    }, origin)  # fmt: skip
    heads, size = config.get("num_attention_heads", found["heads"]), config.get("image_size")
    if type(heads) is not int or heads < 1 or found["width"] % heads:
        raise UserError(f"{origin}: num_attention_heads is {str(heads)[:80]}, expected a number "
                        f"that divides {found['width']} channels")  # fmt: skip
    known: dict[str, Any] = {"heads": heads}
    if isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size):
        known["grid"] = [side // found["patch"] for side in size]
    epsilon = config.get("layer_norm_eps", mask_classification.EPSILON)
    if not isinstance(epsilon, int | float) or not 0 < epsilon < 1:
        raise UserError(f"{origin}: layer_norm_eps is {str(epsilon)[:80]}, expected a small number")
    return known | {"epsilon": epsilon}


def _require(config: Mapping[str, Any], wanted: Mapping[str, Any], origin: str) -> None:
    for key, value in wanted.items():
        if key in config and config[key] != value:
            raise UserError(f"{origin}: {key} is {str(config[key])[:80]}, expected {value}")


def _heads(config: Mapping[str, Any], found: dict, origin: str) -> list[int]:
    """Heads of attention in each stage, which no tensor tells."""
    heads, widths = config.get("num_attention_heads", found["num_heads"]), found["embed_dims"]
    fits = isinstance(heads, list) and len(heads) == len(widths) and all(
        type(number) is int and number > 0 and width % number == 0
        for number, width in zip(heads, widths, strict=True)
    )  # fmt: skip
    if not fits:
        raise UserError(f"{origin}: num_attention_heads is {str(heads)[:80]}, expected one number "
                        f"a stage that divides its channels {widths}")  # fmt: skip
    return heads


def _bins(config: Mapping[str, Any], origin: str) -> list[int]:
    bins = config.get("pool_scales", BINS)
    fits = isinstance(bins, list) and len(bins) == len(BINS)
    if not fits or not all(type(number) is int and 0 < number <= 64 for number in bins):
        raise UserError(f"{origin}: pool_scales is {str(bins)[:80]}, expected four numbers such as "
                        f"{BINS}")  # fmt: skip
    return bins


def _classes(config: Mapping[str, Any], count: int, origin: str) -> tuple[str, ...]:
    """Names by id; transformers leaves them out where they are its own."""
    told = config.get("id2label", {str(index): f"LABEL_{index}" for index in range(count)})
    names = [told.get(str(index)) for index in range(count)] if isinstance(told, Mapping) else []
    names = [name.strip() if isinstance(name, str) else "" for name in names]
    if not names or len(told) != count or not all(names) or len(set(names)) != count:
        raise UserError(f"{origin}: id2label is {str(told)[:80]}, expected a name of its own for "
                        f"each of the {count} classes of the tensors")  # fmt: skip
    return tuple(names)
