"""What the configuration of every command holds, beyond what signatures say of `_target_` nodes.

A key that the configurations of older runs lack is `NotRequired`.
"""

from collections.abc import Collection
from copy import deepcopy
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from segtrain.configuration.validation import validate
from segtrain.errors import UserError
from segtrain.values import (
    Count,
    ExtraMetric,
    Fraction,
    Given,
    Natural,
    Node,
    NonNegative,
    Positive,
    Precision,
    ProperFraction,
    Rule,
    Size,
    Text,
)

Devices = Count | Literal["auto"]
Paths = Text | list[Text]
Port = Annotated[int, Rule("from 0 to 65535", lambda number: 0 <= number <= 65535)]
SUCH = Rule("such as [1,8,64]", lambda numbers: True)  # an example, no rule
Dataset = Annotated[Node, Given("batch_size", "seed")]
Inference = Annotated[Node, Given("things")]


class Processes(TypedDict):
    """Where a command runs (conf/trainer/predict.yaml)."""

    accelerator: Literal["auto", "gpu", "cpu"]
    devices: Devices
    num_nodes: Devices
    max_restarts: NotRequired[Natural]


class Computation(Processes):
    """How networks are evaluated (conf/trainer/evaluate.yaml)."""

    precision: Precision
    deterministic: bool
    compile: bool
    channels_last: bool
    progress_bar: bool


class Training(Computation):
    """How they are trained (conf/trainer/default.yaml)."""

    max_steps: Count | None
    max_epochs: Positive | None
    accumulate_grad_batches: Count
    gradient_clip_val: Positive | None
    val_every_n_steps: Count | None
    checkpoint_every_n_steps: Count
    log_every_n_steps: Count


class BatchNorm(TypedDict):
    """Of a training; `decay` is the share of the running statistics that a step keeps."""

    decay: Fraction | None
    frozen: bool


class PublishedValue(TypedDict):
    """A paper's figure."""

    value: float
    metric: Text
    source: Text
    comparable: bool


class Report(TypedDict):
    """Pictures of report.html."""

    examples: Natural
    max_side: Count


class Recipe(TypedDict):
    """What `train` and `benchmark` share."""

    dataset: Dataset
    loss: Annotated[Node, Given("ignore_index")]
    optimizer: Annotated[Node, Given("model", "max_steps")]
    inference: Inference
    architecture: Annotated[Node, Given("num_classes")]
    trainer: Training
    callback: NotRequired[dict[str, Node]]
    logger: NotRequired[dict[str, Annotated[Node, Given("save_dir", "id", "run_id")]]]
    experiment: NotRequired[Text]
    seed: Natural
    batch_size: Count
    batch_norm: BatchNorm
    frozen: NotRequired[list[Text]]
    weights: Text | None
    starts_from: NotRequired[Text | None]
    starts_from_checkpoint: NotRequired[Literal["best", "last"]]
    weights_without: NotRequired[list[Text]]
    resume: Text | None
    published: PublishedValue | None
    extra_metrics: NotRequired[list[ExtraMetric]]
    automatic: NotRequired[bool | list[Text]]
    chosen: NotRequired[dict[str, Text]]
    report: NotRequired[Report | None]


class Benchmark(Recipe):
    """`segtrain benchmark`."""

    measure: Annotated[Node, Given("config")]


class Evaluate(TypedDict):
    """`segtrain evaluate`."""

    dataset: NotRequired[Dataset]
    inference: NotRequired[Inference]
    trainer: Computation
    run: Text | None
    checkpoint: Text | None
    weights: Text | None
    weights_file: Text | None
    protocol: Text | None
    output_stride: Literal[8, 16, 32] | None
    ensemble: list[Text]
    extra_metrics: list[ExtraMetric] | None
    split: Text | None
    report: Report | None
    trust_code: bool
    submit: bool
    submit_competition: Literal["comp5", "comp6"] | None


class Use(TypedDict):
    """How a network is used on pictures, see `segtrain.predictor.Settings`."""

    device: Text
    precision: Precision
    min_score: Fraction
    max_pixels: Count
    short_side: Count | None


class Predict(Use):
    """`segtrain predict`."""

    inference: NotRequired[Inference]
    trainer: Processes
    run: Text | None
    checkpoint: Text | None
    model: Text | None
    weights: Text | None
    weights_file: Text | None
    input: Paths | None
    output: Text | None
    overwrite: bool
    classes: list[Text | int]
    batch_size: Count
    num_workers: Natural | Literal["auto"]
    timeout: Natural
    trust_code: bool


class Demo(Use):
    """`segtrain demo`."""

    inference: NotRequired[Inference]
    run: Text | None
    checkpoint: Text | None
    model: Text | None
    weights: Text | None
    weights_file: Text | None
    host: Text
    port: Port | None
    browser: bool
    trust_code: bool


class Export(TypedDict):
    """`segtrain export`."""

    run: Text | None
    checkpoint: Text | None
    weights: Text | None
    weights_file: Text | None
    format: Literal["onnx", "torch_export", "safetensors", "hub"]
    licence: Text | None
    output: Text | None
    returns: Literal["logits", "labels"]
    size: Size | None
    compare_on: Text | None
    compare_sizes: list[Size]
    trust_code: bool


class ReportAgain(TypedDict):
    """`segtrain report`."""

    trainer: Computation
    run: Text
    examples: Natural
    max_side: Count
    trust_code: bool


_Export = TypedDict("_Export", {"from": Text | None})  # which no class may have for a name


class Prepare(_Export):
    """`segtrain prepare`."""

    to: Text | None
    images: Text | None
    val_share: ProperFraction
    dataset: Dataset
    verify: bool | None
    preview: bool
    preview_samples: Count
    complete: bool
    keep_archives: bool
    shards: Count | Literal["auto"] | None
    shard_megabytes: Positive
    shard_splits: list[Text] | None
    panoptic: Text | None
    output: Text | None
    seed: Natural
    batch_size: Count


class Table(TypedDict):
    """`segtrain table`."""

    runs: Paths
    layout: Literal["published", "runs"]
    sort: Text | None
    output: Paths


class Plan(TypedDict):
    """`segtrain plan`."""

    experiments: Paths | None
    evaluations: Paths
    seeds: list[Natural] | None
    measure_speed: bool | None
    measure_seconds: Positive
    gpus: Count | Annotated[list[Count], SUCH] | None
    tflops: Positive | None
    bandwidth: Positive
    latency: NonNegative
    output: Paths
    overrides: list[Text]


class Reproduce(TypedDict):
    """`segtrain reproduce`."""

    experiments: Paths | None
    evaluations: Paths
    seeds: list[Natural] | None
    evaluate: bool
    resume: Text | None
    overrides: list[Text]


class Sweep(TypedDict, total=False):
    """How the jobs of a sweep are run, and what a search is (conf/sweep)."""

    jobs: Count | Literal[-1]
    trials: Count
    seed: Natural
    storage: Text | None
    study: Text
    sampler: Annotated[Node, Given("seed")]
    pruner: Node | None


SCHEMAS: dict[str, type] = {
    "train": Recipe,
    "benchmark": Benchmark,
    "evaluate": Evaluate,
    "predict": Predict,
    "demo": Demo,
    "export": Export,
    "report": ReportAgain,
    "prepare": Prepare,
    "table": Table,
    "plan": Plan,
    "reproduce": Reproduce,
}


def checked(command: str, config: dict[str, Any]) -> dict[str, Any]:
    """The resolved configuration of a command, which nothing in it will stop.

    Raises:
        UserError: see `segtrain.configuration.validation.validate`.
    """
    return validate(SCHEMAS[command], config)


def checked_stored(config: dict[str, Any], parts: Collection[str], origin: str) -> dict[str, Any]:
    """The configuration of a run from a file, whose parts that are used nothing in them will stop.

    What else the file holds, perhaps of an older version of the program, does no harm.

    Args:
        config: that was admitted (see `segtrain.foreign.admit`), as names in it are imported.
        parts: keys of `Recipe`.
        origin: what messages call the file.

    Raises:
        UserError: see `segtrain.configuration.validation.validate`.
    """
    hints = Recipe.__annotations__ | {"experiment": Text}  # which is stored always
    schema = TypedDict("schema", {part: hints[part] for part in parts})
    try:
        return config | validate(schema, {key: config[key] for key in parts if key in config})
    except UserError as error:
        raise UserError(f"{origin}: {error}") from None


def takes(command: str, config: dict[str, Any], key: str) -> bool:
    """Whether something would read a key that the configuration does not have yet."""
    whole = deepcopy(config)
    *sections, name = key.split(".")
    node = whole
    for section in sections:
        node = node.get(section)
        if not isinstance(node, dict):
            return False
    node[name] = None
    try:
        checked(command, whole)
    except UserError as error:
        return f"unknown key '{key}'" not in str(error)
    return True
