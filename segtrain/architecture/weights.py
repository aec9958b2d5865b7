"""Loading weights: every key accounted for, or an error that lists what does not fit."""

from pathlib import Path

import torch
from torch import Tensor, nn

from segtrain.errors import UserError

SHOWN_KEYS = 6


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a .pth / .pt / .ckpt / .safetensors file.

    Files of plain tensors only: pickled classes are refused. A checkpoint of this package gives
    its model's (averaged) weights.

    Raises:
        UserError: the file is missing or holds no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files
        raise UserError(f"{path}: not a readable weights file ({str(error)[:200]})") from None
    state = content.get("state_dict", content.get("model", content))
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: holds no state dict of tensors")
    return {key.removeprefix("model."): value for key, value in state.items()}


def load_weights(
    module: nn.Module, state: dict[str, Tensor], origin: str, ignore: tuple[str, ...] = ()
) -> None:
    """Copies `state` into `module`, all of it or none.

    Args:
        module: receives the weights.
        state: tensors by name.
        origin: what the error message calls them.
        ignore: key prefixes that may stand in `state` without a counterpart (a classifier).

    Raises:
        UserError: lists missing, unexpected and mismatched keys.
    """
    own = module.state_dict()
    state = {key: value for key, value in state.items() if key in own or not key.startswith(ignore)}
    missing = sorted(own.keys() - state.keys())
    unexpected = sorted(state.keys() - own.keys())
    mismatched = sorted(
        f"{key} (file {tuple(state[key].shape)}, model {tuple(own[key].shape)})"
        for key in own.keys() & state.keys()
        if own[key].shape != state[key].shape
    )
    if missing or unexpected or mismatched:
        raise UserError(
            f"{origin} does not fit this architecture ({type(module).__name__}):"
            + _listed("missing in the file", missing)
            + _listed("not in the model", unexpected)
            + _listed("of another shape", mismatched)
            + "\n  choose the architecture, backbone and class count that the weights were made for"
        )
    module.load_state_dict(state)


def _listed(title: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = f", ... {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return f"\n  {len(keys)} {title}: {', '.join(keys[:SHOWN_KEYS])}{more}"


TORCHVISION_NAMES = (
    # torchvision's FCNHead and DeepLabHead -> ours
    ("backbone.", "backbone.body."),
    ("aux_classifier.0.", "auxiliary.conv.0."),
    ("aux_classifier.1.", "auxiliary.conv.1."),
    ("aux_classifier.4.", "auxiliary.classifier."),
)
TORCHVISION_FCN_NAMES = (
    ("classifier.0.", "head.conv.0."),
    ("classifier.1.", "head.conv.1."),
    ("classifier.4.", "head.classifier."),
)
TORCHVISION_DEEPLABV3_NAMES = (
    ("classifier.0.convs.4.1.", "head.aspp.image_pooling.0."),
    ("classifier.0.convs.4.2.", "head.aspp.image_pooling.1."),
    ("classifier.0.convs.", "head.aspp.branches."),
    ("classifier.0.project.", "head.aspp.project."),
    ("classifier.1.", "head.refine.0."),
    ("classifier.2.", "head.refine.1."),
    ("classifier.4.", "head.classifier."),
)


def from_torchvision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames the state dict of torchvision's fcn_* or deeplabv3_* model to ours."""
    is_deeplab = any(key.startswith("classifier.0.convs.") for key in state)
    rules = TORCHVISION_NAMES + (
        TORCHVISION_DEEPLABV3_NAMES if is_deeplab else TORCHVISION_FCN_NAMES
    )
    renamed = {}
    for key, value in state.items():
        old, new = next(((old, new) for old, new in rules if key.startswith(old)), ("", ""))
        renamed[new + key.removeprefix(old)] = value
    return renamed


def fetch_torchvision(name: str) -> dict[str, Tensor]:
    """State dict of torchvision's segmentation model `name`, from its cache or the network."""
    from torchvision.models import get_model_weights, list_models, segmentation

    known = list_models(module=segmentation)
    if name not in known:
        raise UserError(f"torchvision has no '{name}'; it has: {', '.join(known)}")
    entry = get_model_weights(name).DEFAULT
    try:
        return entry.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        raise UserError(
            f"the weights torchvision/{name} could not be fetched ({error}); download {entry.url} "
            "elsewhere and give its path: weights=<file>"
        ) from None
