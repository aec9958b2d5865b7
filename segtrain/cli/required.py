"""What a command cannot do without, looked at before PyTorch is imported and a folder is made."""

import glob
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segtrain.checkpoints import find_checkpoint
from segtrain.configuration.schema import Evaluate, Export, Predict, Prepare, ReportAgain
from segtrain.errors import UserError
from segtrain.zoo.catalogue import is_published


def require(command: str, config: dict[str, Any]) -> None:
    """Refuses a command that lacks an argument, or whose argument names what is not there.

    Args:
        command: its name.
        config: resolved and checked.

    Raises:
        UserError: says which argument.
    """
    if command in CHECKS:
        CHECKS[command](config)


def predict_source(config: Predict) -> str:
    """What `run=`, `checkpoint=`, `model=` or `weights=` of `predict` names.

    Raises:
        UserError: none or several of them are given.
    """
    keys = ("run", "checkpoint", "model", "weights")
    given = [str(config[key]) for key in keys if config[key] is not None]
    if len(given) != 1:
        raise UserError("give one of run=<run folder>, checkpoint=<file>, model=<exported folder> "
                        "and weights=<zoo>/<name>, such as weights=torchvision/<name>")  # fmt: skip
    return given[0]


def _predict(config: Predict) -> None:
    given = config["input"]
    if given is None:
        raise UserError("give input=<picture, video, folder, pattern or .txt list>")
    for one in [given] if isinstance(given, str) else given:
        if not os.path.lexists(one) and not glob.has_magic(str(one)):
            raise UserError(f"input={one}: no such file or folder")
    source = predict_source(config)
    if config["weights"] is None and not is_published(source) and not Path(source).exists():
        find_checkpoint({"run": None, "checkpoint": source})


def _evaluate(config: Evaluate) -> None:
    weights = config.get("weights")  # evaluations of before have none
    given = [config["run"], config["checkpoint"], weights]
    if sum(one is not None for one in given) != 1:
        raise UserError("give one of run=<run folder>, checkpoint=<file> and weights=<zoo>/<name>, "
                        "or weights=<file> of another project")  # fmt: skip
    if weights is None:
        if config.get("protocol") is not None:
            raise UserError("protocol=... is one of a published network's, weights=<zoo>/<name>; a "
                            "run is tested by inference=...")  # fmt: skip
        find_checkpoint(config)


def _export(config: Export) -> None:
    if config["weights"] is None:
        find_checkpoint(config)
    elif config["run"] is not None or config["checkpoint"] is not None:
        raise UserError("give one of run=<run folder>, checkpoint=<file> and weights=<zoo>/<name>")


def _report(config: ReportAgain) -> None:
    folder = Path(config["run"])
    if not (folder / "results.json").is_file():
        raise UserError(f"run={folder}: {folder / 'results.json'} does not exist; give the folder "
                        "of a training run or of an evaluation that is done")  # fmt: skip


def _prepare(config: Prepare) -> None:
    if (config["from"] is None) != (config["to"] is None):
        raise UserError("from=<folder or file of an export> and to=<new folder> belong together")


CHECKS: dict[str, Callable[[dict], None]] = {
    "predict": _predict,
    "evaluate": _evaluate,
    "export": _export,
    "report": _report,
    "prepare": _prepare,
}
