"""Classes of published networks by their names: in another order, or others than a data set's."""

from collections.abc import Sequence
from importlib import import_module

import yaml
from torch import Tensor

from segtrain.architecture.weights import is_classifier
from segtrain.configuration.folder import conf_dir
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.zoo.entry import Entry

SHOWN = 5  # classes in a message


def labels_of(dataset: str) -> LabelSet:
    """The classes of an option of `conf/dataset` that has its own.

    Raises:
        UserError: its classes are those of a folder, or there is no such option.
    """
    file = conf_dir() / "dataset" / f"{dataset}.yaml"
    content = yaml.load(file.read_text(), yaml.CSafeLoader) if file.is_file() else {"labels": {}}
    module, _, name = content["labels"].get("path", "").rpartition(".")
    if not module:
        raise UserError(f"dataset={dataset} has no classes of its own, by which those of a file of "
                        "another project could be told")  # fmt: skip
    return getattr(import_module(module), name)


def names_in_file(entry: Entry) -> tuple[str, ...]:
    """Names of the classes in the order of a row's file."""
    return entry.classes or labels_of(entry.dataset).names


def in_order_of(
    state: dict[str, Tensor], names: Sequence[str], wanted: Sequence[str], origin: str
) -> dict[str, Tensor]:
    """The tensors of a network whose classifiers put out the classes `wanted`, in that order.

    Args:
        state: by our names.
        names: of its classes, in its order.
        wanted: names, as many or fewer.
        origin: what messages call the network.

    Raises:
        UserError: it does not know a class that is wanted.
    """
    if tuple(names) == tuple(wanted):
        return state
    if missing := [name for name in wanted if name not in names]:
        raise UserError(f"{origin} is for other classes: {_unlike(names, missing, wanted)}")
    rows = [names.index(name) for name in wanted]
    if "query_features" in state:  # of a network of queries, whose last row is of no class
        rows.append(len(names))
    count = len(names) + len(rows) - len(wanted)
    return {
        key: value[rows] if is_classifier(key) and len(value) == count else value
        for key, value in state.items()
    }


def require_classes(known: Sequence[str], labels: LabelSet, origin: str) -> None:
    """Refuses a data set that has other classes than a network, in whatever order.

    Raises:
        UserError: says in which they differ.
    """
    if set(known) != set(labels.names):
        missing = [name for name in labels.names if name not in known]
        raise UserError(
            f"{origin} is for other classes than the data set: "
            + _unlike(known, missing, labels.names)
        )


def _unlike(known: Sequence[str], missing: Sequence[str], wanted: Sequence[str]) -> str:
    more = [name for name in known if name not in wanted]
    parts = [f"it knows {len(known)}, the data set has {len(wanted)}"]
    if missing:
        parts.append(f"it does not know {_listed(missing)}")
    if more:
        parts.append(f"the data set does not have {_listed(more)}")
    return "; ".join(parts)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
