"""A network as a folder for the Hugging Face hub, which loads here again by `hf:<owner>/<name>`.

SegFormer, and UPerNet on ConvNeXt and Swin, are written as transformers has them, with its
`config.json` around ours, so that either program reads the folder.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from segtrain import __version__
from segtrain.assembly import shapes
from segtrain.configuration.composing import compose_config
from segtrain.zoo.folder import CONFIG, PREPROCESSOR, WEIGHTS
from segtrain.zoo.names import hf
from segtrain.zoo.preprocessing import BILINEAR, TO_UNIT
from segtrain.zoo.sizes import architecture, sizes
from segtrain.zoo.transformers import FIXED, SIZES, STAGES

# Settings of timm's that change nothing, or that `config.json` tells.
KNOWN_ARGUMENTS = {"drop_path_rate", "pretrained_cfg_overlay"}


def write_hub_folder(model: nn.Module, folder: Path, description: dict, card: str) -> None:
    """Writes `config.json`, `model.safetensors`, `preprocessor_config.json` and `README.md`.

    Args:
        model: the network.
        folder: is made.
        description: see `segtrain.export.folder.describe`.
        card: the text of `README.md`.
    """
    state = model.state_dict()
    config: dict[str, Any] = {"library_name": "segtrain", "segtrain_version": __version__}
    kind, theirs = in_transformers(model, description)
    if kind is not None:
        config, state = transformers_config(kind, model, description) | config, theirs
    names = description["labels"]["names"]
    config["id2label"] = {str(index): name for index, name in enumerate(names)}
    config["label2id"] = {name: index for index, name in enumerate(names)}
    config["segtrain"] = description
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    pictures = json.dumps(preprocessor(model, description["inference"]), indent=2) + "\n"
    (folder / PREPROCESSOR).write_text(pictures)
    (folder / "README.md").write_text(card, encoding="utf-8")
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / WEIGHTS[0], {"format": "pt"})


def in_transformers(model: nn.Module, description: dict) -> tuple[str | None, dict[str, Tensor]]:
    """Which of `hf.LAYOUTS` a network has, and its tensors there; None where it has none."""
    node = description["architecture"]
    kind = _kind_by_name(node)
    if kind is None:
        return None, {}
    own = model.state_dict()
    known = set(SIZES[kind].values()) | KNOWN_ARGUMENTS
    theirs = hf.in_their_layout(kind, own)
    if theirs is None or not (node["backbone"].get("timm_arguments") or {}).keys() <= known:
        return None, {}
    # It has to be what they build of such sizes: another norm or activation has other tensors.
    _, overrides = architecture(kind, own, _heads(kind, model))
    standard = compose_config([*overrides, "architecture.backbone.weights=none"])["architecture"]
    expected = shapes(standard, len(description["labels"]["names"]))
    same = {key: value.shape for key, value in own.items()} == {
        key: value.shape for key, value in expected.items()
    }
    return (kind, theirs) if same else (None, {})


def _kind_by_name(node: dict) -> str | None:
    target, backbone = node["_target_"].rpartition(".")[2], node["backbone"]
    if target == "SegFormer":
        is_own = backbone["_target_"].endswith(".MixTransformer") and not node["projection_norm"]
        return "segformer" if is_own else None
    has_norms = backbone.get("norm_maps", False) and backbone.get("output_stride") == 32
    if target != "UPerNet" or not has_norms or len(node["bins"]) != len(STAGES):
        return None
    names = {"convnext_": "convnext", "swin_": "swin"}
    return next((k for name, k in names.items() if backbone["name"].startswith(name)), None)


def _heads(kind: str, model: nn.Module) -> dict[str, list[int]]:
    """Heads of attention of a Mix Transformer, which its tensors do not tell."""
    if kind != "segformer":
        return {}
    stages = [getattr(model.backbone.body, f"stages_{stage}") for stage in range(len(STAGES))]
    return {"num_heads": [stage.blocks[0].attn.num_heads for stage in stages]}


def transformers_config(kind: str, model: nn.Module, description: dict) -> dict[str, Any]:
    """What `config.json` says to transformers of a network in one of its layouts."""
    state, node = model.state_dict(), description["architecture"]
    found = sizes(kind, state) | _heads(kind, model)
    body = FIXED[kind] | {theirs: found[own] for theirs, own in SIZES[kind].items()}
    if kind == "segformer":
        return {
            "architectures": ["SegformerForSemanticSegmentation"],
            "model_type": "segformer",
            **body,
            "decoder_hidden_size": node["channels"],
            "classifier_dropout_prob": node["dropout"],
            "drop_path_rate": node["backbone"]["drop_path"],
        }
    has_auxiliary = "auxiliary.classifier.bias" in state
    auxiliary = {} if not has_auxiliary else {
        "auxiliary_channels": node["auxiliary_channels"],
        "auxiliary_in_channels": model.backbone.channels[-2],
    }  # fmt: skip
    return {
        "architectures": ["UperNetForSemanticSegmentation"],
        "model_type": "upernet",
        "backbone_config": {"model_type": kind, **body, "out_features": STAGES},
        "hidden_size": node["channels"],
        "pool_scales": node["bins"],
        "use_auxiliary_head": has_auxiliary,
        **FIXED["upernet"],
        **auxiliary,
    }


def preprocessor(model: nn.Module, inference: dict) -> dict[str, Any]:
    """What `preprocessor_config.json` says: how pictures become what the network takes."""
    size = inference.get("size") or {}
    is_fixed = "height" in size
    normalize = model.backbone.normalize
    mean, std = (
        [round(float(number) / 255, 6) for number in values.flatten()]
        for values in (normalize.mean, normalize.std)
    )
    return {
        "image_processor_type": "SegformerImageProcessor",
        "do_resize": is_fixed,
        **({"size": dict(size)} if is_fixed else {}),
        "resample": BILINEAR,
        "do_rescale": True,
        "rescale_factor": TO_UNIT,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
        "do_reduce_labels": False,
    }
