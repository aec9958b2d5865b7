"""What training on an image takes: operations, and what is kept for the backward pass.

Networks are run with fake tensors, which have shapes and no values: seconds and no memory each.
"""

import copy
import json
import logging
import warnings
from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from segtrain.architecture.blocks import batch_norms
from segtrain.architecture.instance.fpn import batch_of, with_coarsest
from segtrain.architecture.instance.mask_rcnn import MaskRCNN
from segtrain.architecture.instance.panet import PANet
from segtrain.assembly import build_task, make
from segtrain.configuration.schema import Recipe
from segtrain.contracts import is_detector
from segtrain.dataset.cache import store_entry, stored_entry
from segtrain.plan.speed import picture_size
from segtrain.task.unused import tensors_of
from segtrain.trained import without_pretraining

logger = logging.getLogger("segtrain")

FILE = "training_work.json"  # in the cache; a person may read and delete it
WHOLE_STEP = 3  # operations over those of the forward pass: each product has two gradients
IMAGES = 2, 3  # that are counted; the difference is one
REGIONS = 8, 16  # of a detector's heads that are counted, on real tensors
MAP_CELLS = 16  # a side, of the maps that they are pooled from


class Work(NamedTuple):
    """What training takes, by images in a forward pass.

    Args:
        operations: an image's, forward and backward, of matrix products and convolutions; a
            multiply-add is two.
        saved: bytes an image that autograd keeps, and its scores.
        kept: bytes beside them, however many images: the weights in bfloat16.
        norms: channels of each batch norm that learns its statistics.
    """

    operations: float
    saved: float
    kept: float
    norms: list[int]


class Line(NamedTuple):
    """Operations and bytes of a forward pass, as a line over the number of images or regions."""

    operations: float
    saved: float
    kept: float


def work(config: Recipe) -> Work:
    """What a training takes, counted once and then read from the cache.

    Raises:
        RuntimeError: the network cannot be run without values.
    """
    number, key = int | float, work_key(config)
    kinds = {"operations": number, "saved": number, "kept": number, "norms": list}
    entry = stored_entry(FILE, key, kinds)
    if entry is None:
        logger.info("counting    %s", config["experiment"])
        entry = count_work(config)._asdict()
        store_entry(FILE, key, entry)
    return Work(**{name: entry[name] for name in kinds})


def work_key(config: Recipe) -> str:
    """What the work depends on, as a hash."""
    parts = [
        torch.__version__, without_pretraining(config["architecture"]), config["frozen"],
        config["batch_norm"], uses_half(config), picture_size(config),
        config["dataset"]["labels"],
    ]  # fmt: skip
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def uses_half(config: Recipe) -> bool:
    """Whether a GPU computes in 16 bits, as it does with `auto`."""
    return str(config["trainer"]["precision"]) in ("auto", "bf16-mixed", "16-mixed")


def count_work(config: Recipe) -> Work:
    """What a training takes.

    A detector is counted as its backbone, pyramid and region proposals, and its heads with as many
    regions as an image may give them, positives included: an untrained one would find too few.

    Raises:
        RuntimeError: the network cannot be run without values.
    """
    config = copy.deepcopy(config)
    config["loss"].get("pixel", {})["class_weights"] = None
    config |= {"weights": None, "architecture": without_pretraining(config["architecture"])}
    config["trainer"] |= {"compile": False, "channels_last": False}  # fake ones cannot change
    labels, size, half = make(config["dataset"]["labels"]), picture_size(config), uses_half(config)
    # Some networks read values while they are built, such as rates of stochastic depth.
    with torch.device("meta"):
        task = build_task(config, labels).train()
    with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # of copies
        task.to_empty(device="cpu")
        forward = dense_part if is_detector(task.model) else whole
        lines = [line(task.model, lambda count: forward(task.model, count, size), IMAGES, half)]
    norms = [norm.num_features for norm in batch_norms(task.model) if norm.training]
    if isinstance(task.model, MaskRCNN | PANet):
        with torch.device("meta"):
            model = make(config["architecture"], num_classes=labels.num_classes)
        _, samples, fraction = model.sampling
        for head, regions in ((model.box, samples), (model.mask, round(samples * fraction))):
            head.to_empty(device="cpu")
            found = line(head, lambda n, head=head: regions_of(head, model, n), REGIONS, half)
            lines.append(Line(regions * found.operations, regions * found.saved, found.kept))
    operations, saved, kept = (sum(values) for values in zip(*lines, strict=True))
    return Work(WHOLE_STEP * operations, saved, max(0.0, kept), norms)


def line(
    model: nn.Module, forward: Callable[[int], list[Tensor]], counts: tuple[int, int], half: bool
) -> Line:
    """The work of one more image or region, and the bytes kept for none.

    Args:
        model: whose parameters are not counted.
        forward: runs so many and returns what the loss sees.
        counts: two numbers that are run.
        half: whether in bfloat16.
    """
    own = {storage(parameter) for parameter in model.parameters()}
    found = []
    for count in counts:
        bytes_of: dict[int, int] = {}
        alive = []  # so that no place is given to another tensor

        def keep(tensor: Tensor, bytes_of: dict = bytes_of, alive: list = alive) -> Tensor:
            alive.append(tensor)
            bytes_of[storage(tensor)] = tensor.untyped_storage().nbytes()
            return tensor

        counter = FlopCounterMode(display=False)
        with (
            counter,
            torch.autocast("cpu", torch.bfloat16, enabled=half),
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        ):
            for output in forward(count):
                keep(output)
        saved = sum(size for key, size in bytes_of.items() if key not in own)
        found.append((counter.get_total_flops(), saved))
    (few, little), (many, much) = found
    step = counts[1] - counts[0]
    slope = (much - little) / step
    return Line((many - few) / step, slope, little - counts[0] * slope)


def storage(tensor: Tensor) -> int:
    """Which memory a tensor is a view of."""
    return tensor.untyped_storage()._cdata


def whole(model: nn.Module, count: int, size: tuple[int, int]) -> list[Tensor]:
    """What a network that takes one batch of images says of them in training."""
    return list(tensors_of(model(torch.zeros(count, 3, *size, dtype=torch.uint8))))


def dense_part(model: nn.Module, count: int, size: tuple[int, int]) -> list[Tensor]:
    """A detector's maps, with the scores and offsets of its region proposals where it has them."""
    images = [torch.zeros(3, *size, dtype=torch.uint8) for _ in range(count)]
    maps = with_coarsest(
        model.neck(model.backbone(batch_of(images, model.backbone.normalize.mean)))
    )
    if not hasattr(model, "rpn"):
        return maps
    return [*maps, *(part for level in maps for part in model.rpn.score(level))]


def regions_of(head: nn.Module, model: MaskRCNN | PANet, count: int) -> list[Tensor]:
    """What a head makes of so many regions of one image."""
    maps = [torch.zeros(1, model.neck.channels, MAP_CELLS, MAP_CELLS, requires_grad=True)
            for _ in head.strides]  # fmt: skip
    boxes = [torch.tensor([[0.0, 0.0, 32.0, 32.0]]).expand(count, 4)]
    if head is model.mask:
        return [head(maps, boxes, torch.ones(count, dtype=torch.long))]
    return list(head(maps, boxes))
