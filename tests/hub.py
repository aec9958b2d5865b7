"""Small networks of transformers with random weights, and a server in the hub's layout."""

import json
import re
from pathlib import Path

import torch
import transformers
from mask_classifiers import eomt, mask2former
from randomised import randomise
from torch import Tensor, nn

STAGES = ["stage1", "stage2", "stage3", "stage4"]
CLASSES = ("circle", "square", "background")
KINDS = ("segformer", "convnext", "swin")


def reference(kind: str, classes: tuple[str, ...] = CLASSES) -> nn.Module:
    """A network of transformers that is small, with weights that no layer may ignore."""
    names = dict(enumerate(classes))
    told = {"id2label": names, "label2id": {name: index for index, name in names.items()}}
    if kind == "segformer":
        model = transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(
            depths=[1, 2, 1, 1], hidden_sizes=[8, 16, 24, 32], num_attention_heads=[1, 4, 3, 2],
            decoder_hidden_size=16, **told,
        ))  # fmt: skip
    else:
        body = transformers.ConvNextConfig(
            hidden_sizes=[8, 16, 24, 32], depths=[1, 2, 1, 1], out_features=STAGES
        ) if kind == "convnext" else transformers.SwinConfig(
            embed_dim=8, depths=[1, 2, 1, 1], num_heads=[1, 2, 2, 4], window_size=3,
            out_features=STAGES,
        )  # fmt: skip
        model = transformers.UperNetForSemanticSegmentation(transformers.UperNetConfig(
            backbone_config=body, hidden_size=16, auxiliary_channels=8,
            auxiliary_in_channels=24 if kind == "convnext" else 32, **told,
        ))  # fmt: skip
    return randomise(model)


SWINS = {"tiny": (96, [2, 2, 6, 2], 7), "small": (96, [2, 2, 18, 2], 7),
         "base": (128, [2, 2, 18, 2], 12), "large": (192, [2, 2, 18, 2], 12)}  # fmt: skip
PLAIN = {"small": (384, 12, 6, 3), "base": (768, 12, 12, 3), "large": (1024, 24, 16, 4)}


def full_size_of_masks(name: str, classes: int) -> nn.Module:
    """The Mask2Former or EoMT of transformers in a repository that the name describes."""
    is_semantic = "semantic" in name
    size = next(size for size in SWINS if size in name)
    if "mask2former" in name:
        width, depths, window = SWINS[size]
        body = transformers.SwinConfig(
            embed_dim=width, depths=depths, window_size=window, out_features=STAGES,
            num_heads=[width // 32 * 2**stage for stage in range(4)],
        )  # fmt: skip
        queries = 200 if size == "large" and not is_semantic else 100
        return mask2former(body, num_queries=queries, num_labels=classes)
    width, depth, heads, blocks = PLAIN[size]
    settings = {
        "hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads,
        "num_blocks": blocks, "num_queries": 100 if is_semantic else 200, "num_labels": classes,
        "image_size": int(re.search(r"\d{3,}", name)[0]),
    }  # fmt: skip
    if "dinov3" in name:
        settings |= {"dinov3": True, "intermediate_size": 4 * width}
    return eomt(**settings)


def saved(model: nn.Module, folder: Path, **settings) -> Path:
    """The folder that transformers writes of a network."""
    transformers.logging.set_verbosity_error()
    model.save_pretrained(folder, **settings)
    return folder


def changed(folder: Path, name: str = "config.json", **values) -> Path:
    """The folder with other values in one of its files of JSON; None takes one away."""
    file = folder / name
    content = (json.loads(file.read_text()) if file.is_file() else {}) | values
    file.write_text(json.dumps({key: v for key, v in content.items() if v is not None}))
    return folder


def pushed(server, folder: Path, name: str, revision: str = "main") -> str:
    """What `weights=` takes for a folder once a server has its files."""
    for file in folder.iterdir():
        server.files[f"/{name}/resolve/{revision}/{file.name}"] = file.read_bytes()
    return f"hf:{name}" + ("" if revision == "main" else f"@{revision}")


def logits_of(model: nn.Module, pixels: Tensor) -> Tensor:
    """Before they are resized to the image; `pixels` are normalised."""
    with torch.no_grad():
        if hasattr(model, "segformer"):
            return model(pixels).logits
        return model.decode_head(model.backbone(pixels).feature_maps)
