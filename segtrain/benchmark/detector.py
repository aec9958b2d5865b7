"""Training steps and tests of Mask R-CNN here, against torchvision's with the same weights."""

import multiprocessing
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from statistics import median

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD

from segtrain.architecture.weights import load_weights
from segtrain.assembly import build_model, make
from segtrain.benchmark.step import ask, autocast, serve
from segtrain.benchmark.timing import alternate, median_ratio
from segtrain.configuration.schema import Recipe
from segtrain.contracts import InstanceTarget
from segtrain.dataset.instances import target_from_masks, training_objects
from segtrain.errors import UserError
from segtrain.hardware import resolve_precision
from segtrain.masks import paste
from segtrain.values import Count, Size
from segtrain.zoo.names.torchvision import renamed

SURENESS = 4.0  # factor of untrained class scores, at which some classes are probable enough
MASK_THRESHOLD = 0.5
STILL = 1e-9  # learning rate: an untrained network that diverges takes another time


def detector_speed(config: Recipe, size: Size, objects: Count, rounds: Count) -> list[dict]:
    """Four rows: a training step and a test, here and in torchvision.

    A step is forward, losses, backward and optimiser; a test goes from one image to thresholded
    masks: full-size ones in torchvision, run-length codes here. Each side lives in a process of its
    own, so that its peak memory is its own, and they take turns. Both compute in the precision of
    `trainer.precision`, with as many proposals; torchvision otherwise as its users do.

    Args:
        config: the resolved configuration, of Mask R-CNN on a ResNet-50.
        size: height and width of the images, which are not resized.
        objects: in each training image.
        rounds: timed calls, after one that is not.

    Raises:
        UserError: torchvision has no such network; or a side failed.
    """
    architecture = config["architecture"]
    name = architecture["_target_"].rpartition(".")[2]
    if name != "MaskRCNN" or not architecture["backbone"]["name"].startswith("resnet50"):
        raise UserError("measure=detector: torchvision has Mask R-CNN on a ResNet-50 only; choose "
                        "architecture=mask_rcnn")  # fmt: skip
    rows = []
    for what in ("training step", "test"):
        sides = start_sides(config, tuple(size), objects, what)
        calls = {side: partial(ask, pipe, "step", side) for side, pipe in sides.items()}
        seconds = alternate(calls, rounds)
        memory = {side: ask(pipe, "memory", side) for side, pipe in sides.items()}
        for pipe in sides.values():
            pipe.close()
        batch = config["batch_size"] if what == "training step" else 1
        rows += [
            {
                "side": side,
                "what": what,
                "images": f"{batch}x{size[0]}x{size[1]}",
                "precision": resolve_precision(config["trainer"]),
                "ms": 1e3 * median(seconds[side]),
                "peak memory MB": memory[side] / 2**20,
                "time ratio": median_ratio(seconds[side], seconds["torchvision"]),
                "memory ratio": memory[side] / memory["torchvision"],
            }
            for side in sides
        ]
    return rows


def start_sides(
    config: Recipe, size: tuple[int, int], objects: int, what: str
) -> dict[str, Connection]:
    """A process for each side; they answer as `step.serve` does."""
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for side, worker in (("segtrain", our_side), ("torchvision", peer_side)):
        pipes[side], end = context.Pipe()
        arguments = (end, config, size, objects, what)
        context.Process(target=worker, args=arguments, daemon=True).start()
        end.close()
    return pipes


def our_side(
    pipe: Connection, config: Recipe, size: tuple[int, int], objects: int, what: str
) -> None:
    """See `ours`."""
    precision = resolve_precision(config["trainer"])
    serve(pipe, config, partial(ours, config, size, objects, what, precision))


def ours(
    config: Recipe,
    size: tuple[int, int],
    objects: int,
    what: str,
    precision: str,
    device: torch.device,
    classes: int,
) -> tuple[nn.Module, Callable[[], None]]:
    """Network, and its training step or test as training and evaluation build them."""
    model = build_model(config, classes)
    state = peer(config, classes, size).state_dict()
    load_weights(model, renamed(state, model.state_dict()), "torchvision")
    model = model.to(device)
    images, samples = scenes(config["batch_size"], size, objects, classes)
    images = [image.to(device) for image in images]
    if what == "test":
        return model.eval(), partial(our_test, config, device, model, images[0])
    targets = [training_objects(sample, size[::-1], flip=False) for sample in samples]
    targets = [{key: value.to(device) for key, value in t.items()} for t in targets]
    loss = make(config["loss"])
    optimizer, _ = make(config["optimizer"] | {"lr": STILL})(model, max_steps=1000)

    def call() -> None:
        with autocast(precision, device):
            outputs = model(images, targets)
        sum(loss(outputs).values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return model.train(), call


def our_test(config: Recipe, device: torch.device, model: nn.Module, image: Tensor) -> None:
    """One image to run-length codes."""
    side = min(image.shape[1:])
    detect = make(config["inference"] | {"short_sides": [side], "long_side": 10**6})
    with torch.no_grad(), autocast(resolve_precision(config["trainer"]), device):
        (found,) = detect(model, [image])
    masks, boxes = (found[key].float().cpu().numpy() for key in ("masks", "boxes"))
    paste(masks, boxes, tuple(image.shape[1:]), MASK_THRESHOLD)


def peer_side(
    pipe: Connection, config: Recipe, size: tuple[int, int], objects: int, what: str
) -> None:
    """See `theirs`."""
    precision = resolve_precision(config["trainer"])
    serve(pipe, config, partial(theirs, config, size, objects, what, precision))


def theirs(
    config: Recipe,
    size: tuple[int, int],
    objects: int,
    what: str,
    precision: str,
    device: torch.device,
    classes: int,
) -> tuple[nn.Module, Callable[[], None]]:
    """torchvision's network, and its training step with its own losses and plain SGD, or test."""
    model = peer(config, classes, size).to(device)
    images, samples = scenes(config["batch_size"], size, objects, classes)
    images = [image.to(device).float() / 255 for image in images]
    if what == "test":

        def test() -> None:
            with torch.no_grad(), autocast(precision, device):
                (found,) = model(images[:1])
            (found["masks"] > MASK_THRESHOLD).cpu()

        return model.eval(), test
    targets = [
        {
            "boxes": torch.from_numpy(sample["boxes"]).to(device),
            "labels": torch.from_numpy(sample["labels"] + 1).to(device),
            "masks": torch.from_numpy(sample["masks"]).to(device),
        }
        for sample in samples
    ]
    optimizer = SGD(model.parameters(), lr=STILL, momentum=0.9, weight_decay=1e-4)

    def call() -> None:
        with autocast(precision, device):
            losses = model(images, targets)
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return model.train(), call


def peer(config: Recipe, classes: int, size: tuple[int, int]) -> nn.Module:
    """torchvision's network, untrained, the same in both processes."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    torch.manual_seed(0)
    rpn = config["architecture"]["rpn"]
    model = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=1 + classes,
        min_size=min(size),
        max_size=max(size),
        rpn_post_nms_top_n_train=rpn["post_nms"]["train"],
    )
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight.mul_(SURENESS)
    return model


def scenes(
    count: int, size: tuple[int, int], objects: int, classes: int
) -> tuple[list[Tensor], list[InstanceTarget]]:
    """Images (3, H, W) uint8 with ellipses."""
    rng = np.random.default_rng(0)
    images, targets = [], []
    for number in range(count):
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        masks = np.zeros((objects, *size), np.uint8)
        for mask in masks:
            centre = [int(rng.integers(0, length)) for length in size[::-1]]
            axes = (min(size) * rng.uniform(0.02, 0.3, 2)).astype(int).tolist()
            cv2.ellipse(mask, centre, axes, rng.uniform(0, 180), 0, 360, 1, -1)
            image[mask > 0] = rng.integers(0, 256, 3)
        labels = rng.integers(0, classes, objects).tolist()
        targets.append(target_from_masks(masks, labels, np.zeros(objects, bool), number))
        images.append(torch.from_numpy(image).permute(2, 0, 1))
    return images, targets
