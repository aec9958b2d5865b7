"""Where the parts meet: a resolved configuration in, data, network and task out.

What only a training or an evaluation needs (Lightning, augmentations) is imported where it is
built: whoever rebuilds a network to use it starts without.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from torch import Tensor, nn

from segtrain.architecture.blocks import batch_norms
from segtrain.architecture.weights import load_weights, require_fit
from segtrain.configuration.messages import where_to_look
from segtrain.configuration.schema import Inference
from segtrain.configuration.validation import validate
from segtrain.dataset.counts import class_frequency, median_frequency_weights
from segtrain.dataset.folder import folder_white_level
from segtrain.dataset.shard_index import ShardReading, describe_shards
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.trained import Trained, without_pretraining
from segtrain.values import ExtraMetric
from segtrain.zoo.initial import load_initial_weights

if TYPE_CHECKING:
    from segtrain.dataset.datamodule import SegmentationData
    from segtrain.task.segmentation import Evaluation, Segmentation

logger = logging.getLogger("segtrain")


def make(node: dict, **call_time: Any) -> Any:
    """Builds the object that a configuration node names, with a message that names its key.

    Raises:
        UserError: an argument is unknown or missing, or the object refuses its settings.
    """
    try:
        return instantiate(node, **call_time, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, TypeError | ValueError | ImportError | AttributeError):
            target, hint = node.get("_target_"), where_to_look(str(cause))
            raise UserError(f"{target} cannot be built from its settings: {cause}{hint}") from error
        raise


def task_of(node: dict) -> str:
    """What the class that a configuration node names is for; semantic where it does not say."""
    return getattr(get_class(node["_target_"]), "task", "semantic")


def build_data(config: dict) -> "SegmentationData":
    """The data module; reads no image yet."""
    return make(config["dataset"], batch_size=config["batch_size"], seed=config["seed"])


def resolve_white_level(config: dict) -> None:
    """Puts the number for `dataset.source.white_level=auto`, by which the network is used later.

    Raises:
        UserError: see `segtrain.dataset.folder.folder` and `describe_shards`.
    """
    source, shards = config["dataset"]["source"], config["dataset"].get("shards")
    if source.get("white_level") != "auto":
        return
    if shards is None:
        found = folder_white_level(source["root"])
    else:  # older ones do not tell
        found = describe_shards(ShardReading(shards)).get("white_level")
    source["white_level"] = found or "auto"


def with_sizes(inference: dict, dataset: dict) -> dict:
    """The inference node with the largest training size where it leaves the size of the test open.

    Args:
        inference: whose `short_sides`, `short_side` and `long_side` may be null.
        dataset: the data set's node.
    """
    transform = dataset["transform"]
    if "short_side" not in transform:
        return inference
    largest = max(transform["short_side"])
    sizes = {"short_sides": [largest], "short_side": largest, "long_side": transform["long_side"]}
    return {key: sizes.get(key) if value is None else value for key, value in inference.items()}


def build_inference(node: dict, labels: LabelSet) -> Any:
    """How a network looks at images.

    Args:
        node: of the protocol, with its sizes.
        labels: the classes.

    Raises:
        UserError: it is for panoptic segmentation, and the labels are not.
    """
    if task_of(node) != "panoptic":
        return make(node)
    if labels.things is None:
        raise UserError(
            "inference=panoptic is for classes of which some have instances and others have none, "
            "as of dataset=coco_panoptic; these are of another kind: choose another inference=..."
        )
    return make(node, things=labels.things)


def build_loss(node: dict, labels: LabelSet) -> nn.Module:
    """The loss of a network's outputs, which may have to know the label of void pixels."""
    is_pixelwise = task_of(node) == "semantic"
    return make(node, **({"ignore_index": labels.ignore_index} if is_pixelwise else {}))


def build_model(
    config: dict, num_classes: int, classes: Sequence[str] | None = None
) -> nn.Module:
    """The network with its initial weights; `classes` are their names, where they are known."""
    model = make(config["architecture"], num_classes=num_classes)
    if config["weights"] is not None:  # older runs have no parts without them
        load_initial_weights(model, config["weights"], config.get("weights_without", []), classes)
    if config["batch_norm"]["decay"] is not None:
        for norm in batch_norms(model):
            norm.momentum = 1 - config["batch_norm"]["decay"]
    if config["trainer"]["channels_last"]:
        model = model.to(memory_format=torch.channels_last)
    return model


def shapes(architecture: dict, num_classes: int) -> dict[str, Tensor]:
    """The tensors of a network, without their values."""
    with torch.device("meta"):
        return make(architecture, num_classes=num_classes).state_dict()


def rebuild(trained: Trained, inference: dict | None) -> tuple[nn.Module, Any, LabelSet]:
    """Network in evaluation mode, inference and label set of a trained network.

    Args:
        trained: what its file holds.
        inference: another protocol's node; None for the network's own.

    Raises:
        UserError: the file's weights do not fit its architecture or are not finite, or the protocol
            has values that cannot be, or is for another task.
    """
    architecture = without_pretraining(trained.config["architecture"])
    inference = validate(Inference, inference or trained.config["inference"], "inference")
    tasks = [task_of(node) for node in (trained.config["inference"], inference)]
    if tasks[0] != tasks[1]:
        raise UserError(f"{trained.origin} is a network for '{tasks[0]}', the inference protocol "
                        f"is for '{tasks[1]}'; choose another with inference=...")  # fmt: skip
    labels = trained.labels or make(trained.config["dataset"]["labels"])
    _require_room(architecture, labels.num_classes, trained)
    model = make(architecture, num_classes=labels.num_classes)
    load_weights(model, trained.state, trained.origin)
    model = model.to(memory_format=torch.channels_last).eval().requires_grad_(False)
    dataset = trained.config.get("dataset", {"transform": {}})
    if "thresholds" in inference and inference["thresholds"] is None:
        chosen = trained.config["inference"].get("thresholds")
        inference = {**inference, "thresholds": chosen}
    return model, build_inference(with_sizes(inference, dataset), labels), labels


def _require_room(architecture: dict, num_classes: int, trained: Trained) -> None:
    """Refuses a network that the file only describes, before memory is taken for it.

    Raises:
        UserError: it has other tensors than the file, or is too large for any memory.
    """
    name = architecture["_target_"].rpartition(".")[2]
    try:
        own = shapes(architecture, num_classes)
    except (InstantiationException, RuntimeError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, NotImplementedError):  # a class of the user's that needs values
            return
        reason = str(cause).partition("\n")[0]
        raise UserError(f"{trained.origin}: {name} cannot be built: {reason}") from None
    require_fit(own, trained.state, trained.origin, name)


def build_task(config: dict, labels: LabelSet) -> "Segmentation":
    """The LightningModule with network, loss, inference and optimiser recipe.

    Raises:
        UserError: the configuration does not fit together or does not fit the classes.
    """
    from segtrain.task.segmentation import Segmentation

    config["inference"] = with_sizes(config["inference"], config["dataset"])
    inference = build_inference(config["inference"], labels)
    if inference.task == "semantic":
        check_per_class("loss.pixel.class_weights", config["loss"].get("pixel", {}), labels)
        check_per_class("inference.logit_adjustment", config["inference"], labels)
    if inference.task == "multilabel":
        check_per_class("loss.pixel.positive_weights", config["loss"].get("pixel", {}), labels)
        check_per_class("inference.thresholds", config["inference"], labels)
    return Segmentation(
        model=build_model(config, labels.num_classes, labels.names),
        loss=build_loss(config["loss"], labels),
        inference=inference,
        evaluation=build_evaluation(
            inference.task,
            labels,
            config.get("extra_metrics", []),  # not in the configuration of older runs
            inference,
        ),
        optimizer=make(config["optimizer"]),
        labels=labels,
        config=config,
        seed=config["seed"],
        compile_model=config["trainer"]["compile"],
        freeze_batch_norm=config["batch_norm"]["frozen"],
        frozen=config.get("frozen", []),  # not in the configuration of older runs
        parts=config["trainer"]["accumulate_grad_batches"],
    )


def build_evaluation(
    task: str,
    labels: LabelSet,
    extra_metrics: Sequence[ExtraMetric] = (),
    inference: Any = None,
) -> "Evaluation":
    """How networks for a task are trained and measured.

    Args:
        task: semantic, multilabel, panoptic, instance or proposal.
        labels: the classes.
        extra_metrics: of semantic networks, see `SemanticEvaluation`.
        inference: which a semantic network's calibration depends on, and whose thresholds a
            multilabel one uses and chooses.

    Raises:
        UserError: there are no such metrics for the task.
    """
    if task == "semantic":
        from segtrain.task.semantic import SemanticEvaluation

        probabilities = getattr(inference, "gives_probabilities", False)
        return SemanticEvaluation(labels, extra_metrics, probabilities)
    if extra_metrics:
        raise UserError(f"extra_metrics={list(extra_metrics)}: they are of semantic networks, this "
                        f"one is for '{task}'; use extra_metrics=[]")  # fmt: skip
    if task == "multilabel":
        from segtrain.task.multilabel import MultilabelEvaluation

        return MultilabelEvaluation(labels, inference)
    if task == "panoptic":
        from segtrain.task.panoptic import PanopticEvaluation

        return PanopticEvaluation(labels)
    from segtrain.task.instance import InstanceEvaluation

    return InstanceEvaluation(labels, task)


def resolve_class_weights(config: dict, data: "SegmentationData") -> None:
    """Puts numbers for the name of a rule, by the class frequencies of the training split."""
    rule = config["loss"].get("pixel", {}).get("class_weights")
    if not isinstance(rule, str):
        return
    powers = {"median_frequency": 1.0, "sqrt_median_frequency": 0.5}
    name = f"{data.name}-{data.splits['train']}"
    frequency = class_frequency(data.train_source, name, data.num_workers)
    weights = median_frequency_weights(*frequency) ** powers[rule]
    config["loss"]["pixel"]["class_weights"] = [round(float(weight), 4) for weight in weights]


def check_per_class(key: str, node: dict, labels: LabelSet) -> None:
    """Refuses a list of one number a class that was made for other classes."""
    values = node.get(key.rpartition(".")[2])
    if values is not None and len(values) != labels.num_classes:
        raise UserError(
            f"{key} has {len(values)} entries for {labels.num_classes} classes "
            f"({', '.join(labels.names)}); give one a class, or null"
        )
