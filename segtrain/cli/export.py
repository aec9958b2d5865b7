"""`export`: a trained network as ONNX, torch.export or a folder, compared with the original."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from shlex import quote

import numpy as np
import torch
from rich.table import Table
from torch import Tensor, nn

from segtrain.assembly import build_data, rebuild, with_sizes
from segtrain.errors import RunStopped, UserError
from segtrain.export.card import model_card, results_of
from segtrain.export.compare import (
    Comparison,
    compare,
    read_pictures,
    sample_pictures,
    smooth_pictures,
)
from segtrain.export.deployed import Deployed, labels_of, one_look
from segtrain.export.detector import (
    DeployedDetector,
    DetectionComparison,
    compare_detections,
    one_detection,
)
from segtrain.export.files import in_one_step, size_of
from segtrain.export.folder import describe, unequal_tensors, write_folder
from segtrain.export.hub import in_transformers, write_hub_folder
from segtrain.export.onnx import load_onnx, require_packages, write_onnx
from segtrain.export.queries import (
    DeployedQueries,
    OfQueries,
    QueryComparison,
    compare_queries,
)
from segtrain.export.torch_export import load_program, trace, write_program
from segtrain.inference.detect import Detect
from segtrain.inference.semantic import SemanticInference
from segtrain.published.network import read_published
from segtrain.report.results import environment
from segtrain.text import console
from segtrain.trained import (
    Trained,
    find_checkpoint,
    read_checkpoint,
    read_exported,
    white_level,
    without_pretraining,
)
from segtrain.writing import write_json

logger = logging.getLogger("segtrain")

Network = Callable[[Tensor], Tensor | tuple[Tensor, ...]]
NO_DATASET: dict = {"transform": {}}  # of what knows none
AnyComparison = Comparison | DetectionComparison | QueryComparison
AnyInference = SemanticInference | Detect | OfQueries

NAMES = {"onnx": "model.onnx", "torch_export": "model.pt2", "safetensors": "model", "hub": "hub"}
FOLDERS = ("safetensors", "hub")  # which segtrain reads again


def run(config: dict, run_dir: Path) -> None:
    """Writes the network where `output` says, and `export.json` into `run_dir`.

    Raises:
        UserError: no such checkpoint, or the network cannot be exported so.
        RunStopped: the exported network differs from the original and is not kept; exit code 1.
    """
    output = Path(config["output"] or run_dir / NAMES[config["format"]])
    trained = find_trained(config)
    model, inference, labels = rebuild(trained, None)
    require_format(config["format"], inference)
    description = describe(
        inference.task,
        without_pretraining(trained.config["architecture"]),
        with_sizes(trained.config["inference"], trained.config.get("dataset", NO_DATASET)),
        labels,
        trained.config["experiment"],
        white_level(trained.config),
    )
    with in_one_step(output) as partial:
        started = time.perf_counter()
        if config["format"] == "hub":
            kind, _ = in_transformers(model, description)
            card = model_card(
                trained, labels, inference.task, kind, licence=config["licence"],
                results=None if config["weights"] else results_of(Path(trained.origin)),
                published=config["weights"],
            )  # fmt: skip
            write_hub_folder(model, partial, description, card)
        exported = write(config, model, inference, description, partial)
        report = {
            "format": config["format"],
            "output": str(output),
            "bytes": size_of(partial),
            "seconds": round(time.perf_counter() - started, 1),
            "checkpoint": trained.origin,
        }
        comparisons = compare_all(config, trained, exported, model, inference)
        finish(report, comparisons, run_dir)
    logger.info("exported    %s", output)
    logger.info("next        %s", use(config["format"], output))


def use(format_name: str, output: Path) -> str:
    """How what was written is run; `pictures` are (N, 3, H, W) uint8."""
    if format_name == "onnx":
        session = f"onnxruntime.InferenceSession({str(output)!r})"
        return f"in Python: {session}.run(None, {{'image': pictures}})"
    if format_name == "torch_export":
        return f"in Python: torch.export.load({str(output)!r}).module()(pictures)"
    if format_name == "hub":
        return f"hf upload <owner>/<name> {quote(str(output))}, and weights=hf:<owner>/<name>"
    return f"segtrain predict {quote(f'model={output}')} source=<pictures>"


def find_trained(config: dict) -> Trained:
    """What `run=`, `checkpoint=` or `weights=` names.

    Raises:
        UserError: there is no such thing.
    """
    if config["weights"] is None:
        return read_checkpoint(find_checkpoint(config), config["trust_code"])
    trust_code = config["trust_code"]
    return read_published(config["weights"], config["weights_file"], None, None, trust_code).trained


def require_format(format_name: str, inference: object) -> None:
    """Refuses what cannot be done before anything is traced.

    Raises:
        UserError: the format is not for such networks, or needs packages that are not there.
    """
    if format_name in FOLDERS:
        return
    if isinstance(inference, SemanticInference):
        exported = one_look(inference).protocol
    elif isinstance(inference, Detect):
        exported = one_detection(inference).protocol
    elif isinstance(inference, OfQueries):
        exported = inference.protocol | {"size": None, "least_size": None}
    else:
        raise UserError(f"format={format_name} is not for segment proposals; use "
                        "format=safetensors and segtrain.load")  # fmt: skip
    own = inference.protocol
    around = own.keys() - {"thresholds"}  # which the metadata have
    left_out = [key for key in own if key in around and own[key] != exported.get(key)]
    if left_out:
        logger.info("inference   one look at whole pictures, without the run's %s",
                    ", ".join(left_out))  # fmt: skip
    if format_name == "onnx":
        require_packages()


def write(
    config: dict,
    model: nn.Module,
    inference: AnyInference,
    description: dict,
    path: Path,
) -> Network | None:
    """Writes the network and reads it again; None for one of proposals, which is its weights.

    Raises:
        RunStopped: weights are not what they were.
    """
    if config["format"] in FOLDERS:
        if config["format"] == "safetensors":
            write_folder(model, path, description)
        again, _, _ = rebuild(read_exported(path, config["trust_code"]), None)
        unequal = unequal_tensors(model, again)
        if unequal:
            raise RunStopped(f"exported weights differ: {', '.join(unequal[:6])}", exit_code=1)
        return deployed(config, again, inference)
    logger.info("tracing     %s", type(model).__name__)
    network = deployed(config, model, inference)
    program = trace(network, None if config["size"] is None else tuple(config["size"]))
    if config["format"] == "torch_export":
        write_program(program, path, description)
        return load_program(path)
    write_onnx(program, path, description, network.returns)
    return load_onnx(path)


def deployed(
    config: dict, model: nn.Module, inference: AnyInference
) -> Deployed | DeployedDetector | DeployedQueries | None:
    """The network with what is around it, as a function of pictures; None for proposals."""
    if isinstance(inference, SemanticInference):
        return Deployed(model, inference, config["returns"])
    if isinstance(inference, OfQueries):
        return DeployedQueries(model)
    return DeployedDetector(model, inference) if isinstance(inference, Detect) else None


def compare_all(
    config: dict,
    trained: Trained,
    exported: Network | None,
    model: nn.Module,
    inference: AnyInference,
) -> list[AnyComparison]:
    """Comparisons with the original at every size; none where `exported` is None.

    Raises:
        UserError: the pictures to compare on cannot be read.
    """
    if exported is None:
        return []
    pictures = find_pictures(config, trained)
    sizes = config["compare_sizes"] if config["size"] is None else [config["size"]]
    sizes = [tuple(size) for size in sizes]
    if isinstance(inference, Detect):
        detector = DeployedDetector(model, inference)
        return [compare_detections(exported, detector, pictures, size) for size in sizes]
    if isinstance(inference, OfQueries):
        queries = DeployedQueries(model)
        return [compare_queries(exported, queries, pictures, size) for size in sizes]
    whole = one_look(inference)

    def decide(logits: Tensor) -> Tensor:
        return labels_of(logits, inference)

    def original(image: Tensor) -> Tensor:
        logits = torch.stack(whole(model, list(image)))
        return logits if config["returns"] == "logits" else decide(logits)

    return [compare(exported, original, pictures, size, decide) for size in sizes]


def find_pictures(config: dict, trained: Trained) -> list[np.ndarray]:
    """What to compare on: the given pictures, or generated ones and some to validate on."""
    if config["compare_on"] is not None:
        return read_pictures(Path(config["compare_on"]))
    pictures = smooth_pictures()
    if "dataset" not in trained.config:
        return pictures
    try:
        data = build_data(trained.config)
        return pictures + sample_pictures(data.source(data.splits["val"]))
    except UserError as error:
        logger.info("compare     on generated pictures alone (%s)", error)
        return pictures


def finish(report: dict, comparisons: list[AnyComparison], run_dir: Path) -> None:
    """Prints the comparisons and writes them into `export.json`.

    Raises:
        RunStopped: the networks do not agree.
    """
    content = report | {
        "comparisons": [comparison._asdict() for comparison in comparisons],
        **environment(),
    }
    write_json(run_dir / "export.json", content)
    if comparisons:
        print_comparisons(comparisons)
    logger.info("results     %s", run_dir / "export.json")
    if not all(comparison.passed for comparison in comparisons):
        raise RunStopped(
            "the exported network says something else than the original more often than rounding "
            f"explains; {report['output']} was not written",
            exit_code=1,
        )


def print_comparisons(comparisons: list[AnyComparison]) -> None:
    """One row a size."""
    table = Table(title="exported against original", title_justify="left")
    for title in comparisons[0].row:
        table.add_column(title, justify="right")
    for comparison in comparisons:
        table.add_row(*comparison.row.values())
    console().print(table)
