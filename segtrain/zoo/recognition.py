"""Whose a state dict is, by the names of its tensors, and the same under ours."""

import logging
import pkgutil
from importlib import import_module
from pathlib import Path
from types import ModuleType

from torch import Tensor

from segtrain.zoo import names
from segtrain.zoo.entry import Recognised

logger = logging.getLogger("segtrain")


def recognise(state: dict[str, Tensor]) -> tuple[str, Recognised] | None:
    """The zoo that a state dict is of, and its network; None where no names are known."""
    for zoo in sorted(module.name for module in pkgutil.iter_modules(names.__path__)):
        found = _names(zoo).recognised(state)
        if found is not None:
            return zoo, found
    return None


def recognise_file(
    file: str | Path, state: dict[str, Tensor]
) -> tuple[str, Recognised] | None:
    """As `recognise`, of a file's tensors; the log says what the file looks like."""
    found = recognise(state)
    if found is not None:
        zoo, network = found
        logger.info("weights     %s looks like %s %s for %d classes", file, zoo, network.system,
                    network.num_classes)  # fmt: skip
    return found


def renamed(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of another project under our names and in our layout; others as they are.

    Args:
        state: the tensors of a file.
        own: those of the network that is to have them.
    """
    found = recognise(state)
    return state if found is None else _names(found[0]).renamed(state, own)


def with_epsilon(state: dict[str, Tensor], epsilon: float, own: float) -> dict[str, Tensor]:
    """The same network for batch norms with the epsilon `own`, of weights made for another.

    Its output is the same: what is put on the variance is taken off the weight.
    """
    result = dict(state)
    for key, variance in state.items():
        if key.endswith("running_var"):
            weight = key.removesuffix("running_var") + "weight"
            result[weight] = state[weight] * ((variance + own) / (variance + epsilon)).sqrt()
    return result


def _names(zoo: str) -> ModuleType:
    return import_module(f"segtrain.zoo.names.{zoo}")
