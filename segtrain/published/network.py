"""Published checkpoints as networks of this package, with classes and a way of testing."""

import logging
from pathlib import Path
from typing import NamedTuple

from segtrain.architecture.weights import read_state_dict
from segtrain.assembly import shapes
from segtrain.configuration.composing import compose_config
from segtrain.errors import UserError
from segtrain.published.folder import DATASETS, read_network
from segtrain.trained import Trained
from segtrain.zoo.catalogue import entries, find, is_row, licence_of, row_of_file, zoo_names
from segtrain.zoo.classes import in_order_of, labels_of, names_in_file
from segtrain.zoo.entry import Entry
from segtrain.zoo.files import obtain
from segtrain.zoo.folder import folder_of, weight_files
from segtrain.zoo.hub import is_hub, obtain_repository, repository_of
from segtrain.zoo.initial import read_row
from segtrain.zoo.recognition import recognise_file, renamed

logger = logging.getLogger("segtrain")


class Published(NamedTuple):
    """A network from elsewhere.

    Attributes:
        trained: what rebuilds it; `config` is that of a training, with the protocol's inference.
        file: that it was read from.
        row: of its zoo; None for a file that is none's.
        protocol: the name of the row's protocol that `config` has; None for a file.
        dataset: option of `conf/dataset` whose classes it gives; None where it is not known.
    """

    trained: Trained
    file: Path
    row: Entry | None
    protocol: str | None
    dataset: str | None


def read_published(
    weights: str,
    given: str | Path | None = None,
    protocol: str | None = None,
    dataset: str | None = None,
    trust_code: bool = False,
) -> Published:
    """The network that `weights` names.

    Args:
        weights: `<zoo>/<name>`, `hf:<owner>/<name>`, a folder with `config.json`, or a file, which
            is told by its name or by those of its tensors.
        given: the row's file where it lies on the disk already, or the folder of one of the hub's;
            None for the cached or fetched one.
        protocol: one of the row's; None for the first.
        dataset: option whose classes a file has that is no row's; None tells it by their number, or
            by their names where these are known.
        trust_code: whether a folder may name classes that are not part of this package.

    Raises:
        UserError: there is no such row, protocol or file, it cannot be fetched, or holds no network
            that is known.
    """
    if is_hub(weights):
        return _of_hub(weights, given, protocol, dataset, trust_code)
    if not is_row(weights):
        if given is not None:
            raise UserError("weights_file is for <zoo>/<name>, such as torchvision/<name>; "
                            f"{weights} has weights of its own")  # fmt: skip
        if (folder := folder_of(weights)) is not None:
            return _of_folder(weights, folder, None, protocol, dataset, trust_code)
        row = row_of_file(weights)
        if row is None:
            return _recognised(Path(weights), protocol, dataset)
        logger.info("weights     %s is called as the file of %s", weights, row.weights)
        return _of_row(row, obtain(row, weights, "weights"), protocol)
    row = find(weights)
    require_protocol(row, protocol)
    return _of_row(row, obtain(row, given, "weights_file"), protocol)


def require_protocol(row: Entry, protocol: str | None) -> str:
    """The name of a row's protocol; its first for None.

    Raises:
        UserError: it has none of that name.
    """
    if protocol is not None and protocol not in row.protocols:
        raise UserError(f"protocol={protocol}: {row.weights} was tested by "
                        + ", ".join(row.protocols))  # fmt: skip
    return protocol or next(iter(row.protocols))


def _of_row(row: Entry, file: Path, protocol: str | None) -> Published:
    protocol = require_protocol(row, protocol)
    name, labels = row.weights, labels_of(row.dataset)
    overrides = [f"dataset={row.dataset}", *row.architecture, "architecture.backbone.weights=none",
                 *row.protocols[protocol].inference]  # fmt: skip
    config = compose_config(overrides)
    own = shapes(config["architecture"], labels.num_classes)
    state = read_row(row, file, own)
    has_auxiliary = any(key.startswith("auxiliary.") for key in state)
    if not has_auxiliary and config["architecture"].get("auxiliary"):
        config["architecture"]["auxiliary"] = False  # only training needs it
    state = in_order_of(state, names_in_file(row), labels.names, name)
    config |= {"experiment": name, "published": None}
    return Published(Trained(name, config, labels, state), file, row, protocol, row.dataset)


def _of_hub(
    weights: str,
    given: str | Path | None,
    protocol: str | None,
    dataset: str | None,
    trust_code: bool,
) -> Published:
    """A repository of the hub, which may be a row's."""
    row = find(weights) if is_row(weights) else None
    if row is not None:
        require_protocol(row, protocol)
    repository = repository_of(weights)
    folder = obtain_repository(repository) if given is None else folder_of(given)
    if folder is None:
        raise UserError(f"weights_file={given}: expected the folder with config.json and the "
                        f"weights of {repository.page}")  # fmt: skip
    logger.info("licence     %s: %s", repository.weights, licence_of(weights))
    return _of_folder(repository.weights, folder, row, protocol, dataset, trust_code)


def _of_folder(
    name: str,
    folder: Path,
    row: Entry | None,
    protocol: str | None,
    dataset: str | None,
    trust_code: bool,
) -> Published:
    """A folder with `config.json`; of a row's, the row says the data set and the protocol."""
    if row is None and protocol is not None:
        raise UserError(f"protocol={protocol} is for networks that `segtrain zoo` lists, "
                        f"which {name} is not")  # fmt: skip
    inference = None
    if row is not None:
        protocol = require_protocol(row, protocol)
        inference, dataset = row.protocols[protocol].inference, row.dataset
    trained, dataset = read_network(name, folder, dataset, inference, trust_code)
    return Published(trained, weight_files(folder)[0], row, protocol, dataset)


def _recognised(file: Path, protocol: str | None, dataset: str | None) -> Published:
    """A file that no row names, by the names of its tensors."""
    if protocol is not None:
        raise UserError(f"protocol={protocol} is for weights=<zoo>/<name>; {file} is no zoo's file")
    state = read_state_dict(file)
    found = recognise_file(file, state)
    if found is None:
        raise UserError(f"{file}: the names of its tensors are of no network that is known; "
                        "`segtrain zoo` lists what is. A training takes it where they are those of "
                        "its own network")  # fmt: skip
    zoo, network = found
    dataset = dataset or DATASETS.get(network.num_classes)
    if dataset is None:
        raise UserError(f"{file} is for {network.num_classes} classes, and nothing says which; "
                        "evaluate takes dataset=<name>")  # fmt: skip
    labels = labels_of(dataset)
    if labels.num_classes != network.num_classes:
        raise UserError(f"{file} is for {network.num_classes} classes, dataset={dataset} has "
                        f"{labels.num_classes}")  # fmt: skip
    config = compose_config([f"dataset={dataset}", *network.architecture,
                             "architecture.backbone.weights=none"])  # fmt: skip
    state = renamed(state, shapes(config["architecture"], labels.num_classes))
    state = in_order_of(state, _usual_order(zoo, dataset), labels.names, str(file))
    config |= {"experiment": file.stem, "published": None}
    return Published(Trained(str(file), config, labels, state), file, None, None, dataset)


def _usual_order(zoo: str, dataset: str) -> tuple[str, ...]:
    """Names of a data set's classes in the order of the zoo's rows."""
    rows = entries(zoo).values() if zoo in zoo_names() else ()
    orders = [names_in_file(row) for row in rows if row.dataset == dataset]
    same = [order for order in orders if len(order) == labels_of(dataset).num_classes]
    return same[0] if same else labels_of(dataset).names
