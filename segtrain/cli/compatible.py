"""Whether architecture, loss, inference and labels are for one task."""

from typing import TYPE_CHECKING

from hydra.utils import get_class

from segtrain.assembly import task_of
from segtrain.configuration.schema import Recipe
from segtrain.contracts import DENSE, OF_PIXELS
from segtrain.errors import UserError

if TYPE_CHECKING:
    from segtrain.dataset.datamodule import SegmentationData

# What kinds of inference can look through networks of a kind, where it is not its own alone.
SERVES = {"semantic": DENSE, "masks": ("semantic", "masks")}


def require_labels(data: "SegmentationData", config: Recipe) -> None:
    """Refuses parts of different tasks: what the data set's labels are, the network learns.

    Raises:
        UserError: architecture, loss and inference are not for one task; or the labels are of
            another: masks for a detector, instances for a semantic network.
    """
    from segtrain.dataset.transforms import SemanticPreset

    task = _common_task(config)
    has_masks = isinstance(data.transform, SemanticPreset)
    if has_masks and data.labels.things is not None and task != "panoptic":
        raise UserError(
            f"dataset={data.name} has panoptic labels, which architecture=mask2former and "
            f"architecture=eomt learn with inference=panoptic; this inference is for '{task}'"
        )
    if has_masks and data.labels.overlapping != (task == "multilabel"):
        has, needs = ("may", "do not") if data.labels.overlapping else ("do not", "may")
        raise UserError(
            f"dataset={data.name} has classes that {has} overlap, loss and inference are for "
            f"classes that {needs}; loss=multilabel inference=multilabel belong to data sets such "
            "as shapes_multilabel, folder_multilabel and coco_json_multilabel, and only to them"
        )
    if has_masks == (task in OF_PIXELS):
        return
    is_open = task_of(config["architecture"]) == "masks"  # the same network learns either
    if has_masks:
        instead = "; or give inference=whole" if is_open else ""
        raise UserError(
            f"dataset={data.name} has masks of classes for labels; the architecture needs "
            f"instances, such as coco2017, cityscapes_instances or shapes_instances{instead}"
        )
    instead = "; or give inference=masks" if is_open else ""
    raise UserError(
        f"dataset={data.name} has instances for labels; the architecture needs a semantic "
        f"data set, such as cocostuff, cocovoc or cityscapes{instead}"
    )


def _common_task(config: Recipe) -> str:
    """The task that architecture, loss and inference are for, which inference alone can tell.

    Raises:
        UserError: they are for different ones.
    """
    tasks = {key: task_of(config[key]) for key in ("architecture", "loss", "inference")}
    network, loss, task = tasks.values()
    kind = getattr(get_class(config["inference"]["_target_"]), "network", task)
    learned = network if network == "masks" else task
    if kind not in SERVES.get(network, (network,)) or loss != learned:
        tasks["inference"] = kind
        found = ", ".join(f"{key} is for '{own}'" for key, own in tasks.items())
        raise UserError(f"{found}: these three belong together; an architecture chooses its own "
                        "loss and inference unless others are named")  # fmt: skip
    return task
