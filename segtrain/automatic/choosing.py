"""Chooses the values of a training that nobody gave, and says why."""

import logging
import os
import urllib.request
from collections.abc import Collection, Iterator

import timm
import torch

from segtrain.architecture.imagenet import FLAVOURS, flavour_file
from segtrain.assembly import build_model
from segtrain.automatic.facts import Facts, find_facts
from segtrain.automatic.rules import (
    Choice,
    batch_size,
    crop_size,
    instance_choices,
    semantic_choices,
    training_size,
    workers,
)

logger = logging.getLogger("segtrain")

HUB = "https://huggingface.co"
HUB_TIMEOUT = 4.0  # seconds after which it counts as out of reach
SPARE = 0.7  # of the free memory is used
MOST = 64  # images a step that are tried
LIGHT = "efficientnet_lite0"
# What is trained in its place without ImageNet weights: a ResNet that learns fast from little.
UNTRAINED = {
    "architecture.backbone.name": "resnet10t",
    "architecture.backbone.timm_arguments": {"channels": [32, 64, 96, 128], "stem_width": 16},
}


def choose(config: dict, given: Collection[str]) -> list[Choice]:
    """Puts the chosen values into the configuration; what was given stays.

    Args:
        config: of a training, resolved and checked; changed.
        given: keys that the user set, with dots; of groups too.

    Returns:
        What was chosen.

    Raises:
        UserError: the data set is faulty.
    """
    facts = find_facts(config)
    made: list[Choice] = []

    def put(choices: list[Choice]) -> None:
        for choice in choices:
            if not is_given(choice.key, given) and has(config, choice.key):
                put_value(config, choice.key, choice.value)
                made.append(choice)

    backbone = config["architecture"]["backbone"]
    if backbone.get("weights") == "imagenet" and config["weights"] is None and "name" in backbone:
        put(list(weights(backbone, given)))
    pretrained = config["architecture"]["backbone"].get("weights") != "none"
    pretrained = pretrained or config["weights"] is not None
    put([choice] if (choice := workers(facts)) else [])
    batch = batch_size(facts, MOST)
    if is_given("batch_size", given):
        batch = config["batch_size"]
    elif not facts.instances:
        batch = batch_size(facts, fitting(config, facts))
    rules = instance_choices if facts.instances else semantic_choices
    if config["trainer"]["max_epochs"] is not None and is_given("trainer.max_epochs", given):
        given = {*given, "trainer.max_steps", "trainer.val_every_n_steps"}
    else:
        config["trainer"]["max_epochs"] = None
    put(rules(facts, batch, pretrained))
    absent = [name for name, count in zip(facts.names, facts.counts, strict=True) if not count]
    if absent:
        logger.warning("classes     in none of the training images that were looked at: %s",
                       ", ".join(absent))  # fmt: skip
    return made


def weights(backbone: dict, given: Collection[str]) -> Iterator[Choice]:
    """None where ImageNet's cannot be had; of the light network's backbone a smaller one then."""
    name, key = backbone["name"], "architecture.backbone.weights"
    if is_given(key, given) or can_fetch(name):
        return
    logger.warning("weights     %s's ImageNet weights cannot be fetched here, so the network "
                   "starts untrained and will be worse; give a file with %s=<file>",
                   name, key)  # fmt: skip
    yield Choice(key, "none", "ImageNet's cannot be fetched here")
    if name == LIGHT and not is_given("architecture.backbone.name", given):
        for part, value in UNTRAINED.items():
            yield Choice(part, value, "learns fast without ImageNet")


def can_fetch(name: str) -> bool:
    """Whether a backbone's ImageNet weights are on the disk, or their server answers."""
    from huggingface_hub import try_to_load_from_cache

    if name in FLAVOURS:
        return flavour_file(name).is_file() or answers(FLAVOURS[name].url)
    place = timm.get_pretrained_cfg(name)
    if place is None:
        return False
    for file in ("model.safetensors", "pytorch_model.bin"):
        if place.hf_hub_id and isinstance(try_to_load_from_cache(place.hf_hub_id, file), str):
            return True
    is_offline = os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on")
    return not is_offline and answers(os.environ.get("HF_ENDPOINT", HUB))


def answers(address: str) -> bool:
    """Whether a server can be reached."""
    try:
        with urllib.request.urlopen(address, timeout=HUB_TIMEOUT):
            return True
    except (OSError, ValueError):
        return False


def fitting(config: dict, facts: Facts) -> int:
    """The most images a step, up to `MOST`, that the free memory holds: two are tried.

    What they take over what one takes is the share of an image.
    """
    size = crop_size(facts, training_size(facts)[0])
    untrained = {**config["architecture"]["backbone"], "weights": "none"}
    architecture = {**config["architecture"], "backbone": untrained}
    try:
        model = build_model({**config, "architecture": architecture}, len(facts.names))
        taken = [step_memory(model, count, size, facts.gpu) for count in (1, 2)]
    except (torch.OutOfMemoryError, MemoryError):
        return 1
    except RuntimeError as error:  # the host's allocator
        if "memory" not in str(error):
            raise
        return 1
    share = max(taken[1] - taken[0], 1)
    return max(1, min(MOST, int(1 + (SPARE * facts.memory - taken[0]) / share)))


def step_memory(model: torch.nn.Module, count: int, size: tuple[int, int], gpu: bool) -> int:
    """Bytes that the tensors of a step take at their most: (count, 3, *size) images."""
    device = torch.device("cuda" if gpu else "cpu")
    model = model.to(device).train()
    held: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    images = torch.zeros(count, 3, *size, dtype=torch.uint8, device=device)
    if gpu:
        torch.cuda.reset_peak_memory_stats()
        model(images)["logits"].float().mean().backward()
        return torch.cuda.max_memory_allocated()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(images)["logits"].float().mean().backward()
    # What the backward pass needs; as much again are gradients, buffers and the loss's own maps.
    return 2 * sum(held.values())


def is_given(key: str, given: Collection[str]) -> bool:
    """Whether the user set the key, a part of it, or what it is a part of."""
    return any(f"{key}.".startswith(f"{one}.") or one.startswith(f"{key}.") for one in given
               if one not in ("dataset", "architecture", "optimizer", "inference", "callback",
                              "loss", "trainer"))  # fmt: skip


def has(config: dict, key: str) -> bool:
    """Whether the configuration has the place of a key; a network without a loss of pixels has
    no class weights."""
    *parts, last = key.split(".")
    node = config
    for part in parts:
        node = node.get(part) if isinstance(node, dict) else None
    return isinstance(node, dict) and last in node


def put_value(config: dict, key: str, value: object) -> None:
    """Sets a value; `has` says whether that can be."""
    *parts, last = key.split(".")
    node = config
    for part in parts:
        node = node[part]
    node[last] = value
