"""The weights that a training starts from: of a whole network, ours or another project's."""

import logging
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from segtrain.architecture.weights import load_weights, read_state_dict
from segtrain.errors import UserError
from segtrain.zoo.catalogue import find, is_row, licence_of, row_of_file
from segtrain.zoo.classes import in_order_of, labels_of, names_in_file
from segtrain.zoo.described import read_described
from segtrain.zoo.entry import Entry
from segtrain.zoo.files import obtain
from segtrain.zoo.folder import folder_of
from segtrain.zoo.hub import is_hub, obtain_repository, repository_of
from segtrain.zoo.recognition import recognise_file, renamed, with_epsilon

logger = logging.getLogger("segtrain")

EPSILON = 1e-5  # of nn.BatchNorm2d


def load_initial_weights(
    model: nn.Module,
    weights: str,
    without: Sequence[str] = (),
    classes: Sequence[str] | None = None,
) -> None:
    """Starts from a whole model: a checkpoint of ours or a published one, by file or name.

    Classifiers for other classes than the file's are trained anew, which is logged.

    Args:
        model: receives the weights.
        weights: the file or folder, `<zoo>/<name>`, or `hf:<owner>/<name>`.
        without: parts of the network that are trained anew, such as `head`.
        classes: names of the model's, to which those of a zoo's row or a folder are put in order;
            None for those of the row's data set, or the folder's own.

    Raises:
        UserError: the weights do not fit, a zoo's file cannot be fetched, or the network has no
            such part.
    """
    own = model.state_dict()
    state = read_initial(weights, own, classes)
    for part in without:
        anew = {key: value for key, value in own.items() if key.startswith(f"{part}.")}
        if not anew:
            known = ", ".join(name for name, _ in model.named_children())
            raise UserError(f"weights_without: the network has no part '{part}'; it has {known}")
        kept = {key: value for key, value in state.items() if not key.startswith(f"{part}.")}
        state = kept | anew
        logger.info("weights     %s: trained anew, as the recipe says: %s", weights, part)
    load_weights(model, state, weights, new_classes=True)


def read_initial(
    weights: str, own: dict[str, Tensor], classes: Sequence[str] | None
) -> dict[str, Tensor]:
    """The tensors that `weights` names, under our names; see `load_initial_weights`.

    Raises:
        UserError: see there.
    """
    folder = folder_of(weights)
    if is_hub(weights):
        folder = obtain_repository(repository_of(weights))
        logger.info("licence     %s: %s", weights, licence_of(weights))
    if folder is not None:
        found = read_described(folder)
        if classes is None or not set(classes) <= set(found.classes):
            return found.state
        return in_order_of(found.state, found.classes, classes, weights)
    given = None if is_row(weights) else weights
    row = find(weights) if given is None else row_of_file(weights)
    if row is not None:
        state = read_row(row, obtain(row, given, "weights"), own)
        known, wanted = names_in_file(row), classes or labels_of(row.dataset).names
        if set(wanted) <= set(known):
            state = in_order_of(state, known, wanted, weights)
        return state
    state = read_state_dict(weights)
    recognise_file(weights, state)
    return renamed(state, own)


def read_row(row: Entry, file: Path, own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a row's file under our names; classifiers stay in the file's order.

    Args:
        row: of the zoo.
        file: its file.
        own: the tensors of the network that is to have them.

    Raises:
        UserError: the file cannot be read.
    """
    state = read_state_dict(file)
    if row.epsilon is not None:
        state = with_epsilon(state, row.epsilon, EPSILON)
    return renamed(state, own)
