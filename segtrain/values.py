"""Types of configuration values: ranges that annotations of constructors and settings name.

An annotation is the only place that says which values a key may have;
`segtrain.configuration.validation` reads it before anything is built. Whole numbers and numbers
are always finite.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, NewType


class Rule(NamedTuple):
    """What a value has to fulfil beyond its type.

    Args:
        words: what messages say of it, behind the name of the type.
        holds: whether a value of the type fulfils it.
        nearest: what messages add for a value that does not; None for nothing.
    """

    words: str
    holds: Callable[[Any], bool]
    nearest: Callable[[Any], str] | None = None


class Given:
    """Arguments that the code adds when it builds an object, and that no configuration sets.

    Args:
        names: of the arguments.
    """

    def __init__(self, *names: str) -> None:
        self.names = frozenset(names)


Node = NewType("Node", dict)  # the settings of an object, with the name of its class in _target_

FILLED = Rule("with at least one entry", lambda values: len(values) > 0)
ASCENDING = Rule("the smaller first", lambda pair: pair[0] <= pair[1])
LARGEST = 2**32 - 1  # of whole numbers: what generators of random numbers take for a seed

Text = Annotated[str, Rule("that is not empty", lambda text: text.strip() != "")]
Natural = Annotated[int, Rule("of at least 0", lambda number: number >= 0)]
Count = Annotated[int, Rule("of at least 1", lambda number: number >= 1)]
Positive = Annotated[float, Rule("above 0", lambda number: number > 0)]
NonNegative = Annotated[float, Rule("of at least 0", lambda number: number >= 0)]
Fraction = Annotated[float, Rule("from 0 to 1", lambda number: 0 <= number <= 1)]
ProperFraction = Annotated[float, Rule("from 0 to below 1", lambda number: 0 <= number < 1)]
Share = Annotated[float, Rule("above 0 and at most 1", lambda number: 0 < number <= 1)]

Counts = Annotated[list[Count], FILLED]
Positives = Annotated[list[Positive], FILLED]
Size = tuple[Count, Count]  # height and width, in pixels
CountRange = Annotated[tuple[Count, Count], ASCENDING]
PositiveRange = Annotated[tuple[Positive, Positive], ASCENDING]

ExtraMetric = Literal["dice", "boundary_iou", "per_image", "calibration"]
OutputStride = Literal[8, 16, 32]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]

# Arguments of classes that are not ours, where their own annotations say less, or nothing.
HINTS_OF_OTHERS: dict[str, dict[str, Any]] = {
    "pytorch_lightning.callbacks.EarlyStopping": {
        "monitor": Text, "mode": Literal["min", "max"], "patience": Natural,
        "min_delta": NonNegative, "verbose": bool,
    },
    "pytorch_lightning.loggers.TensorBoardLogger": {"max_queue": Count, "flush_secs": Count},
    "pytorch_lightning.loggers.WandbLogger": {
        "mode": Literal["online", "offline", "disabled"] | None, "project": Text,
        "name": Text | None, "group": Text | None, "entity": Text | None, "tags": list[Text],
        "notes": Text | None, "log_model": Literal[False],
    },
    "pytorch_lightning.loggers.MLFlowLogger": {
        "experiment_name": Text, "run_name": Text | None, "tracking_uri": Text | None,
        "log_model": Literal[False],
    },
    "optuna.samplers.TPESampler": {"n_startup_trials": Natural, "constant_liar": bool},
    "optuna.pruners.MedianPruner": {"n_startup_trials": Natural, "n_warmup_steps": Natural},
}  # fmt: skip
