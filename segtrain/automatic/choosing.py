"""Chooses the values of a training that nobody gave, and says why."""

import logging
from collections.abc import Collection, Iterator

from segtrain.architecture.imagenet import FLAVOURS, untrained
from segtrain.assembly import task_of
from segtrain.automatic.facts import find_facts
from segtrain.automatic.memory import fitting
from segtrain.automatic.reach import can_fetch
from segtrain.automatic.rules import (
    Choice,
    batch_size,
    instance_choices,
    mask_classification,
    semantic_choices,
    workers,
)
from segtrain.configuration.keys import holder_of
from segtrain.configuration.schema import Recipe

logger = logging.getLogger("segtrain")

MOST = 64  # images a step that are tried
LIGHT = "efficientnet_lite0"
# What is trained in its place without ImageNet weights: a ResNet that learns fast from little.
UNTRAINED = {
    "architecture.backbone.name": "resnet10t",
    "architecture.backbone.timm_arguments": {"channels": [32, 64, 96, 128], "stem_width": 16},
}


def choose(config: Recipe, given: Collection[str]) -> list[Choice]:
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
            holder = holder_of(config, choice.key)
            if holder is not None and not is_given(choice.key, given):
                node, name = holder
                node[name] = choice.value
                made.append(choice)

    backbone = config["architecture"]["backbone"]
    if config["weights"] is None:
        put(list(weights(backbone, given)))
    pretrained = config["weights"] is not None or not is_untrained(backbone["weights"])
    put([choice] if (choice := workers(facts)) else [])
    if is_given("batch_size", given):
        batch = config["batch_size"]
    else:
        batch = batch_size(facts, min(MOST, fitting(config, facts)))
    rules = instance_choices if facts.instances else semantic_choices
    trainer, steps = config["trainer"], None
    if trainer["max_epochs"] is not None and is_given("trainer.max_epochs", given):
        given = {*given, "trainer.max_steps", "trainer.val_every_n_steps"}
        steps = max(1, trainer["max_epochs"] * facts.images // batch)
    else:
        trainer["max_epochs"] = None
        steps = trainer["max_steps"] if is_given("trainer.max_steps", given) else None
    chosen = rules(facts, batch, pretrained, steps)
    if task_of(config["architecture"]) == "masks":
        own = mask_classification(pretrained)
        replaced = {choice.key for choice in own}
        chosen = [choice for choice in chosen if choice.key not in replaced] + own
    put(chosen)
    absent = [name for name, count in zip(facts.names, facts.counts, strict=True) if not count]
    if absent:
        logger.warning("classes     in none of the training images that were looked at: %s",
                       ", ".join(absent))  # fmt: skip
    return made


def weights(backbone: dict, given: Collection[str]) -> Iterator[Choice]:
    """None where ImageNet's cannot be had; of the light network's backbone a smaller one then."""
    key, value = "architecture.backbone.weights", backbone["weights"]
    if value != "imagenet" and value not in FLAVOURS:
        return
    name = value if value in FLAVOURS else backbone.get("name", "vgg16")
    if is_given(key, given) or can_fetch(name):
        return
    logger.warning("weights     %s's ImageNet weights cannot be fetched here, so the network "
                   "starts untrained and will be worse; give a file with %s=<file>",
                   name, key)  # fmt: skip
    yield Choice(key, untrained(value), "ImageNet's cannot be fetched here")
    if name == LIGHT and not is_given("architecture.backbone.name", given):
        for part, value in UNTRAINED.items():
            yield Choice(part, value, "learns fast without ImageNet")


def is_untrained(weights: str) -> bool:
    """Whether a backbone's `weights` leave it random."""
    return weights == untrained(weights)


def is_given(key: str, given: Collection[str]) -> bool:
    """Whether the user set the key, a part of it, or what it is a part of."""
    return any(f"{key}.".startswith(f"{one}.") or one.startswith(f"{key}.") for one in given
               if one not in ("dataset", "architecture", "optimizer", "inference", "callback",
                              "loss", "trainer"))  # fmt: skip
