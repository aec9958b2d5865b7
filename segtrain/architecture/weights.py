"""Loading weights: every key accounted for, or an error that lists what does not fit."""

import logging
import re
from pathlib import Path

from torch import Tensor, nn

from segtrain.errors import UserError
from segtrain.foreign import read_checkpoint
from segtrain.text import shortened

logger = logging.getLogger("segtrain")

SHOWN_KEYS = 6  # in a message
LOGGED_KEYS = 40
# Where files of other programs hold the state dict, and what their wrappers put before its names.
ENTRIES = ("state_dict", "model_state_dict", "model_state", "model", "weights", "network", "net",
           "blobs")  # fmt: skip
PREFIXES = ("module.", "model.", "state_dict.", "network.", "net.")
COMPILED = "_orig_mod."  # of `torch.compile`, before any part's names
# Residual networks by the blocks of their stages and the convolutions of a block.
RESNETS = {
    ((2, 2, 2, 2), 2): "ResNet-18", ((3, 4, 6, 3), 2): "ResNet-34", ((2, 2, 2, 2), 3): "ResNet-26",
    ((3, 4, 6, 3), 3): "ResNet-50", ((3, 4, 23, 3), 3): "ResNet-101",
    ((3, 8, 36, 3), 3): "ResNet-152",
}  # fmt: skip


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a .pth / .pt / .ckpt / .safetensors file, a zip of one, or a .pkl of arrays.

    Files of plain tensors only: pickled classes are refused (see `read_checkpoint`). A checkpoint
    of this package gives its model's (averaged) weights. What wrappers of other programs put before
    the names (`module.`, `_orig_mod.`, ...) is taken off, which is logged.

    Raises:
        UserError: the file is missing or holds no weights.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return without_prefixes(read_safetensors(path), path)
    content = read_checkpoint(path, "weights file")
    while isinstance(content, dict):
        inner = next((content[key] for key in ENTRIES if isinstance(content.get(key), dict)), None)
        if inner is None:
            break
        content = inner
    state = content if isinstance(content, dict) else {}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: holds no state dict of tensors{_found(content)}")
    return without_prefixes(state, path)


def without_prefixes(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors by the names that the network itself gave them.

    Raises:
        UserError: two of them would have one name.
    """
    names = {key: str(key).replace(COMPILED, "") for key in state}
    taken = [COMPILED] if any(names[key] != key for key in state) else []
    while prefix := next((p for p in PREFIXES for n in names.values() if n.startswith(p)), None):
        names = {key: name.removeprefix(prefix) for key, name in names.items()}
        taken.append(prefix)
    if len(set(names.values())) < len(names):
        raise UserError(f"{path}: without {', '.join(taken)} before them, two of its tensors would "
                        "have one name; keep one network in the file")  # fmt: skip
    if [prefix for prefix in taken if prefix != "model."]:  # ours has that one
        logger.info("weights     %s: taken off the names: %s", path, ", ".join(taken))
    return {names[key]: value for key, value in state.items()}


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
        UserError: lists missing, unexpected and mismatched keys, of which the log has more, and
            says what network the file is of where that can be told; or values are not finite.
    """
    own = module.state_dict()
    state = {key: value for key, value in state.items() if key in own or not key.startswith(ignore)}
    if new_classes:
        state = without_other_classes(own, state, origin)
    require_fit(own, state, origin, type(module).__name__)
    spoilt = [key for key in sorted(state) if not state[key].isfinite().all()]
    if spoilt:
        raise UserError(
            f"{origin} holds values that are not finite (NaN or infinite), which a training that "
            f"diverged leaves behind:{_listed('not finite', spoilt)}\n  use an earlier checkpoint"
        )
    module.load_state_dict(own | state)


def require_fit(
    own: dict[str, Tensor], state: dict[str, Tensor], origin: str, architecture: str
) -> None:
    """Refuses tensors that are not those of a network.

    Args:
        own: the network's, which may be without values.
        state: by name.
        origin: what messages call them.
        architecture: what they call the network.

    Raises:
        UserError: see `load_weights`.
    """
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
                logger.info("weights     %d %s: %s", len(keys), title, shortened(keys, LOGGED_KEYS))
        raise UserError(
            f"{origin} does not fit this architecture ({architecture}):"
            + "".join(_listed(title, keys) for title, keys in found.items())
            + _other_network(state, own)
            + "\n  choose the architecture, backbone and class count that the weights were made for"
        )


def without_other_classes(
    own: dict[str, Tensor], state: dict[str, Tensor], origin: str
) -> dict[str, Tensor]:
    """`state` completed by the model's own classifiers where it has none that fit."""
    dropped = sorted(k for k in state.keys() - own.keys() if k.startswith("auxiliary."))
    if dropped:
        logger.info("weights     %s: left out, not in this model: %s", origin,
                    shortened(dropped, LOGGED_KEYS))  # fmt: skip
    replaced = sorted(
        key
        for key, value in own.items()
        if is_classifier(key) and (key not in state or state[key].shape != value.shape)
    )
    if replaced:
        logger.info("weights     %s: trained anew, not in the file for these classes: %s",
                    origin, shortened(replaced, LOGGED_KEYS))  # fmt: skip
    kept = {key: value for key, value in state.items() if key not in dropped}
    return kept | {key: own[key] for key in replaced}


def is_classifier(key: str) -> bool:
    """Whether a parameter belongs to a layer that puts out one value a class."""
    return any("classifier" in part for part in key.split("."))


def resnet_name(state: dict[str, Tensor]) -> str | None:
    """Which ResNet the names belong to, or None where they are of no such network."""
    blocks = [re.search(r"\blayer([1-4])\.(\d+)\.conv(\d)\.weight$", key) for key in state]
    found = [tuple(map(int, block.groups())) for block in blocks if block]
    stages = tuple(1 + max((b for s, b, _ in found if s == stage), default=-1)
                   for stage in (1, 2, 3, 4))  # fmt: skip
    return RESNETS.get((stages, max((c for _, _, c in found), default=0)))


def not_fetched(name: str, error: Exception, file: str = "<file>") -> UserError:
    """What to say where ImageNet weights cannot be had from the network; `file` in their place."""
    return UserError(
        f"the ImageNet weights of '{name}' could not be fetched ({type(error).__name__}). "
        f"Give a file instead (architecture.backbone.weights={file}) or train from scratch "
        "(architecture.backbone.weights=none)"
    )


def _listed(title: str, keys: list[str]) -> str:
    return f"\n  {len(keys)} {title}: {shortened(keys, SHOWN_KEYS)}" if keys else ""


def _other_network(state: dict[str, Tensor], own: dict[str, Tensor]) -> str:
    file, model = resnet_name(state), resnet_name(own)
    if file is None or file == model:
        return ""
    return f"\n  the file is of a {file}, the model is {f'a {model}' if model else 'no ResNet'}"


def _found(content: object) -> str:
    if not isinstance(content, dict):
        return f", but a {type(content).__name__}"
    return f"; its entries are {shortened([str(key) for key in content], SHOWN_KEYS) or 'none'}"
