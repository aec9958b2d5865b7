"""What a training costs: steps, images, time and disk."""

import math
from dataclasses import dataclass
from functools import cache

import torch

from segtrain.assembly import build_data, make
from segtrain.configuration.composing import compose_choices, compose_config
from segtrain.configuration.folder import options
from segtrain.configuration.schema import Recipe
from segtrain.plan.needs import DataState, WeightState, data_state, weight_state
from segtrain.plan.speed import images_a_step, picture_size

CHECKPOINTS = 2  # best.ckpt and last.ckpt
FLOAT = 4  # bytes


@dataclass(frozen=True)
class Cost:
    """One training.

    Args:
        experiment: its name.
        config: its configuration.
        data: state of its data set.
        weights: state of the weights that it starts from, unless an earlier stage gives them.
        steps: of the optimiser; None where the number of images of an epoch is not known.
        at_most: whether `steps` is an upper bound.
        parameters: of its network.
    """

    experiment: str
    config: Recipe
    data: DataState
    weights: WeightState | None
    steps: int | None
    at_most: bool
    parameters: int

    @property
    def images(self) -> int | None:
        """Training images seen."""
        return None if self.steps is None else self.steps * self.config["batch_size"]

    @property
    def input(self) -> str:
        """Images, height and width of a forward pass."""
        height, width = picture_size(self.config)
        return f"{images_a_step(self.config)} x {height}x{width}"

    @property
    def checkpoint_bytes(self) -> int:
        """Of its checkpoints, with the optimiser's state: about."""
        return CHECKPOINTS * FLOAT * (1 + self.optimizer_states) * self.parameters

    @property
    def optimizer_states(self) -> int:
        """Numbers that the optimiser keeps for each parameter."""
        return 2 if "adam" in str(self.config["optimizer"]).lower() else 1

    @property
    def image_bytes(self) -> float | None:
        """Of a training image and its labels on disk, at most; None where they are drawn.

        All archives over the training images: the archives hold other splits' as well.
        """
        count, _ = published_count(self.config, self.config["dataset"]["splits"]["train"])
        return self.data.archive_bytes / count if count and self.data.archive_bytes else None

    def seconds(self, a_step: float) -> float | None:
        """Of all its steps, given those of a forward pass and what belongs to it."""
        parts = self.config["trainer"]["accumulate_grad_batches"]
        return None if self.steps is None else self.steps * a_step * parts


def cost(experiment: str, overrides: list[str], states: dict[str, DataState]) -> Cost:
    """What one training costs, without its speed.

    Args:
        experiment: its name.
        overrides: of its configuration.
        states: of data sets that were looked at; grows.

    Raises:
        UserError: there is no such experiment, or an override does not fit it.
    """
    config, choices = compose_choices([f"experiment={experiment}", *overrides])
    config["experiment"] = experiment
    dataset = config["dataset"]
    key = repr((choices["dataset"], dataset["source"], dataset["splits"]))
    if key not in states:
        states[key] = data_state(config, choices["dataset"])
    steps, at_most = training_steps(config, states[key])
    first = config["starts_from"] is None or config["weights"] is not None
    return Cost(experiment, config, states[key], weight_state(config) if first else None, steps,
                at_most, count_parameters(config))  # fmt: skip


def training_steps(config: Recipe, state: DataState) -> tuple[int | None, bool]:
    """Steps, and whether they are at most so many."""
    settings = config["trainer"]
    if settings["max_steps"] is not None:
        return int(settings["max_steps"]), False
    split, at_most = config["dataset"]["splits"]["train"], False
    if state.state in ("embedded", "present", "verified"):
        count = len(build_data(config).source(split))
    else:
        count, at_most = published_count(config, split)
    if count is None or settings["max_epochs"] is None:
        return None, False
    return math.ceil(settings["max_epochs"] * count / config["batch_size"]), at_most


def published_count(config: Recipe, split: str) -> tuple[int | None, bool]:
    """Images of a split of the complete set, and whether it has at most so many."""
    preparation = config["dataset"]["preparation"] or {"counts": {}}
    counts = [preparation["counts"].get(part) for part in split.split("+")]
    if None not in counts:
        return sum(counts), False
    largest = split_counts(config["dataset"]["source"].get("root")).get(split)
    return largest, True


@cache
def split_counts(root: str | None) -> dict[str, int]:
    """Images of the splits of any data set that lies in a folder: a set may use some of them."""
    found: dict[str, int] = {}
    for name in options("dataset"):
        dataset = compose_config([f"dataset={name}"])["dataset"]
        if dataset["source"].get("root") == root and dataset["preparation"]:
            found |= {k: v for k, v in dataset["preparation"]["counts"].items() if v}
    return found


def count_parameters(config: Recipe) -> int:
    """Of the network, which is not built for it."""
    architecture = config["architecture"]
    plain = architecture | {"backbone": architecture["backbone"] | {"weights": "none"}}
    classes = make(config["dataset"]["labels"]).num_classes
    with torch.device("meta"):
        return sum(p.numel() for p in make(plain, num_classes=classes).parameters())
