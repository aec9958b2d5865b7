"""Networks in folders with `config.json`, of transformers or exported here, as trained ones."""

import logging
from collections.abc import Sequence
from pathlib import Path

import yaml

from segtrain.configuration.composing import compose_config
from segtrain.configuration.folder import conf_dir, options
from segtrain.dataset.labels import voc_colour_map
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.trained import Trained, exported
from segtrain.zoo.classes import in_order_of, labels_of
from segtrain.zoo.described import Described, read_described
from segtrain.zoo.folder import PREPROCESSOR, read_json
from segtrain.zoo.preprocessing import preprocessing

logger = logging.getLogger("segtrain")

# Data sets that a file of so many classes is taken to be for, where nothing says it.
DATASETS = {19: "cityscapes", 21: "voc", 59: "context59", 60: "context", 80: "coco2017",
            133: "coco_panoptic", 150: "ade20k", 171: "cocostuff"}  # fmt: skip
MASK_CLASSIFIERS = ("architecture=mask2former", "architecture=eomt")


def read_network(
    origin: str,
    folder: Path,
    dataset: str | None,
    inference: Sequence[str] | None,
    trust_code: bool,
) -> tuple[Trained, str | None]:
    """What a folder holds, with the configuration of a training.

    Args:
        origin: what messages call it.
        folder: see `segtrain.zoo.folder`.
        dataset: option of `conf/dataset` that it is for; None tells it by the names of the classes.
        inference: overrides of the protocol; None for the folder's own.
        trust_code: whether it may name classes that are not part of this package.

    Returns:
        The network, and the option; without one, `config` has no data set.

    Raises:
        UserError: the folder holds no network that is known.
    """
    found = read_described(folder, trust_code)
    dataset = dataset or dataset_of(found.classes)
    chosen = [] if dataset is None else [f"dataset={dataset}"]
    if found.overrides is None:
        trained = exported(found, folder)
        option = _architecture_of(trained.config["architecture"])
        base = compose_config([*chosen, *([] if option is None else [f"architecture={option}"])])
        own = {
            key: trained.config[key]
            for key in ("architecture", "inference", "experiment", "white_level")
            if key in trained.config
        }
        config = base | own | {"weights": None, "published": None}
        labels, state = trained.labels, found.state
        if inference is not None:
            config["inference"] = compose_config([*chosen, *inference])["inference"]
    else:
        body, seen = _preprocessing(folder, _protocol_of(found.overrides, dataset))
        config = compose_config([*chosen, *found.overrides, *body,
                                 "architecture.backbone.weights=none",
                                 *(seen if inference is None else inference)])  # fmt: skip
        config |= {"experiment": origin, "published": None}
        labels, state = _in_order(found, dataset, origin)
    if dataset is None:
        del config["dataset"]
    return Trained(origin, config, labels, state), dataset


def dataset_of(classes: Sequence[str]) -> str | None:
    """The option of `conf/dataset` that has these classes, in whatever order; None for none."""
    for option in dict.fromkeys([*DATASETS.values(), *options("dataset")]):
        try:
            if set(labels_of(option).names) == set(classes):
                return option
        except UserError:  # its classes are those of a folder
            continue
    return None


def _in_order(found: Described, dataset: str | None, origin: str) -> tuple[LabelSet, dict]:
    """The classes and tensors of a network of transformers, in the data set's order if it has one.

    Names that are spelt otherwise are taken by their place, where there are as many.
    """
    names, labels = found.classes, None if dataset is None else labels_of(dataset)
    if labels is not None and set(labels.names) == set(names):
        return labels, in_order_of(found.state, names, labels.names, origin)
    if labels is not None and labels.num_classes == len(names) and dataset_of(names) is None:
        if all(name == f"LABEL_{index}" for index, name in enumerate(names)):  # it says none
            return labels, found.state
        unlike = sorted(set(names) - set(labels.names))
        if 2 * len(unlike) < len(names):
            logger.warning("classes     %s: taken by their place in dataset=%s: %s", origin,
                           dataset, ", ".join(unlike))  # fmt: skip
            return labels, found.state
    colours = voc_colour_map(len(names) + 1)[1:]
    return LabelSet(names, colours, {index: index for index in range(len(names))}), found.state


def _architecture_of(node: dict) -> str | None:
    """The option of `conf/architecture` of a node's class, which chooses loss and inference."""
    for file in sorted((conf_dir() / "architecture").glob("*.yaml")):
        if yaml.load(file.read_text(), yaml.CSafeLoader)["_target_"] == node.get("_target_"):
            return file.stem
    return None


def _protocol_of(overrides: Sequence[str], dataset: str | None) -> str:
    """The option of `conf/inference` for whole pictures: of a network that classifies masks, what
    the data set's labels ask for; without one, classes of pixels."""
    if dataset is None or overrides[0] not in MASK_CLASSIFIERS:
        return "whole"
    if labels_of(dataset).things is not None:
        return "panoptic"
    file = conf_dir() / "dataset" / f"{dataset}.yaml"
    transform = yaml.load(file.read_text(), yaml.CSafeLoader)["transform"]["_target_"]
    return "masks" if transform.endswith(".InstancePreset") else "whole"


def _preprocessing(folder: Path, inference: str) -> tuple[list[str], list[str]]:
    """Overrides of the network and of the protocol, see `preprocessing`."""
    file = folder / PREPROCESSOR
    content = read_json(file) if file.is_file() else {"do_resize": False}
    body, seen = preprocessing(content, inference, str(file))
    return (body if file.is_file() else []), seen or [f"inference={inference}"]
