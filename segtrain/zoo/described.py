"""A folder with `config.json`, read: what its network is, and the tensors under our names."""

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from segtrain.errors import UserError
from segtrain.zoo.folder import CONFIG, read_tensors, require_config
from segtrain.zoo.names import hf
from segtrain.zoo.transformers import network_of


class Described(NamedTuple):
    """What a folder holds.

    Attributes:
        content: of `config.json`, see `require_config`.
        state: the tensors, by our names.
        classes: names, in the order of the classifiers' rows.
        overrides: that make the network; None where segtrain wrote the folder, whose `content` has
            the settings themselves.
    """

    content: dict[str, Any]
    state: dict[str, Tensor]
    classes: tuple[str, ...]
    overrides: tuple[str, ...] | None


def read_described(folder: Path, trust_code: bool = False) -> Described:
    """What a folder with `config.json` and weights holds.

    Args:
        folder: see `segtrain.zoo.folder`.
        trust_code: whether it may name classes that are not part of this package.

    Raises:
        UserError: a file is missing or damaged, names code, or describes no network that is known.
    """
    path = folder / CONFIG
    content = require_config(folder, trust_code)
    state = read_tensors(folder)
    if "architecture" not in content:
        network = network_of(content, state, str(path))
        return Described(content, hf.renamed(state, {}), network.classes, network.overrides)
    try:
        missing = {"architecture", "inference"} - content.keys()
        names = tuple(content["labels"]["names"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not the description of a network ({error!r})") from None
    if missing:
        raise UserError(f"{path}: has no {' and no '.join(sorted(missing))}")
    _require_depth(content["architecture"], len(state), path)
    if "model_type" in content:
        state = hf.renamed(state, {})
    return Described(content, state, names, None)


def _require_depth(node: Any, tensors: int, path: Path) -> None:
    """Refuses more layers than there are tensors: building them all would take days."""
    for key, value in node.items() if isinstance(node, dict) else ():
        _require_depth(value, tensors, path)
        depths = value if isinstance(value, list) else [value]
        if "depth" in str(key) and any(isinstance(n, int) and n > tensors for n in depths):
            raise UserError(f"{path}: {key} is {str(value)[:80]}, the file has {tensors} tensors")
