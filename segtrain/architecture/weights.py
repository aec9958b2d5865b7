"""Loading weights: every key accounted for, or an error that lists what does not fit."""

import logging
from pathlib import Path

from torch import Tensor, nn

from segtrain.errors import UserError
from segtrain.foreign import read_checkpoint

logger = logging.getLogger("segtrain")

SHOWN_KEYS = 6  # in a message; run.log has all


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a .pth / .pt / .ckpt / .safetensors file.

    Files of plain tensors only: pickled classes are refused. A checkpoint of this package gives
    its model's (averaged) weights.

    Raises:
        UserError: the file is missing or holds no weights.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    content = read_checkpoint(path, "weights file")
    if isinstance(content, dict):
        content = content.get("state_dict", content.get("model", content))
    state = content if isinstance(content, dict) else {}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: holds no state dict of tensors")
    return {key.removeprefix("model."): value for key, value in state.items()}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors file, which can hold nothing else.

    Raises:
        UserError: the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a readable weights file ({error})") from None


def load_weights(
    module: nn.Module,
    state: dict[str, Tensor],
    origin: str,
    ignore: tuple[str, ...] = (),
    new_classes: bool = False,
) -> None:
    """Copies `state` into `module`, all of it or none.

    Args:
        module: receives the weights.
        state: tensors by name.
        origin: what messages call them.
        ignore: key prefixes that may stand in `state` without a counterpart (a classifier).
        new_classes: whether classifiers may be absent from `state` or made for other classes; they
            keep their initial weights then. Layers that put out classes are called classifiers
            throughout. An auxiliary head that the module lacks is left out. Both are logged.

    Raises:
        UserError: lists missing, unexpected and mismatched keys (the log has all of them), or those
            whose values are not all finite.
    """
    own = module.state_dict()
    state = {key: value for key, value in state.items() if key in own or not key.startswith(ignore)}
    if new_classes:
        state = without_other_classes(own, state, origin)
    counters = {key for key in own if key.endswith("num_batches_tracked")}  # nothing reads them
    missing = sorted(own.keys() - state.keys() - counters)
    unexpected = sorted(state.keys() - own.keys())
    mismatched = sorted(
        f"{key} (file {tuple(state[key].shape)}, model {tuple(own[key].shape)})"
        for key in own.keys() & state.keys()
        if own[key].shape != state[key].shape
    )
    if missing or unexpected or mismatched:
        found = {
            "missing in the file": missing,
            "not in the model": unexpected,
            "of another shape": mismatched,
        }
        for title, keys in found.items():
            if len(keys) > SHOWN_KEYS:
                logger.info("weights     %d %s: %s", len(keys), title, ", ".join(keys))
        raise UserError(
            f"{origin} does not fit this architecture ({type(module).__name__}):"
            + "".join(_listed(title, keys) for title, keys in found.items())
            + "\n  choose the architecture, backbone and class count that the weights were made for"
        )
    spoilt = [key for key in sorted(state) if not state[key].isfinite().all()]
    if spoilt:
        raise UserError(
            f"{origin} holds values that are not finite (NaN or infinite), which a training that "
            f"diverged leaves behind:{_listed('not finite', spoilt)}\n  use an earlier checkpoint"
        )
    module.load_state_dict(own | state)


def without_other_classes(
    own: dict[str, Tensor], state: dict[str, Tensor], origin: str
) -> dict[str, Tensor]:
    """`state` completed by the model's own classifiers where it has none that fit."""
    dropped = sorted(k for k in state.keys() - own.keys() if k.startswith("auxiliary."))
    if dropped:
        logger.info("weights     %s: left out, not in this model: %s", origin, ", ".join(dropped))
    replaced = sorted(
        key
        for key, value in own.items()
        if is_classifier(key) and (key not in state or state[key].shape != value.shape)
    )
    if replaced:
        logger.info("weights     %s: trained anew, not in the file for these classes: %s",
                    origin, ", ".join(replaced))  # fmt: skip
    kept = {key: value for key, value in state.items() if key not in dropped}
    return kept | {key: own[key] for key in replaced}


def is_classifier(key: str) -> bool:
    """Whether a parameter belongs to a layer that puts out one value a class."""
    return any("classifier" in part for part in key.split("."))


def not_fetched(name: str, error: Exception) -> UserError:
    """What to say where ImageNet weights cannot be had from the network."""
    return UserError(
        f"the ImageNet weights of '{name}' could not be fetched ({type(error).__name__}). "
        "Give a file instead (architecture.backbone.weights=<file>) or train from scratch "
        "(architecture.backbone.weights=none)"
    )


def _listed(title: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = f", ... {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return f"\n  {len(keys)} {title}: {', '.join(keys[:SHOWN_KEYS])}{more}"
