"""Where figures, pictures and tables of a training go: the loggers of `logger=`.

They are Lightning's own; here is what they need to know of the run, and what each of them does with
what has no figure. In several processes only the first has anything to write.
"""

import contextlib
import logging
import netrc
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from segtrain.assembly import make
from segtrain.configuration.schema import Recipe
from segtrain.errors import UserError
from segtrain.foreign import read_record
from segtrain.sweep.ledger import LEDGER
from segtrain.text import markdown, visible
from segtrain.values import Node
from segtrain.writing import write_json

logger = logging.getLogger("segtrain")

RECORD = "loggers.json"  # in a run folder: the runs that a resumed training goes on with
PACKAGES = {
    "pytorch_lightning.loggers.WandbLogger": ("wandb",),
    "pytorch_lightning.loggers.MLFlowLogger": ("mlflow", "sqlalchemy", "alembic"),
}
# Quiet: they say much at their start and end, send figures of their own use, or ask questions.
ENVIRONMENT = {
    "WANDB_SILENT": "true",
    "WANDB_CONSOLE": "off",  # run.log has it, and bars are no text
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
MLFLOW_STORE = "sqlite:///mlflow.db"  # which `mlflow ui` opens in the same folder

Rows = list[list[str]]


def build_loggers(config: Recipe, run_dir: Path) -> list[Logger]:
    """The loggers that the configuration names; those of a resumed run go on with theirs.

    Raises:
        UserError: a package is missing, or nobody is logged in where that is needed.
    """
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    logging.getLogger("pytorch_lightning.loggers.mlflow").setLevel(logging.ERROR)
    before = stored_runs(run_dir) if config["resume"] else {}
    return [
        build_logger(name, node, before.get(name), config["experiment"], run_dir)
        for name, node in config.get("logger", {}).items()
    ]


def build_logger(
    name: str, node: Node, before: str | None, experiment: str, run_dir: Path
) -> Logger:
    """One logger; `before` is the id of its run that goes on."""
    target = node["_target_"]
    packages = PACKAGES.get(target, ())
    if any(find_spec(package) is None for package in packages):
        raise UserError(f"logger={name} needs {', '.join(packages)}; install what is missing: "
                        f"pip install {' '.join(packages)}")  # fmt: skip
    own_name = f"{experiment}/{run_dir.name}"
    if target.endswith(".WandbLogger"):
        is_job = (run_dir.parent / LEDGER).is_file()
        sweep = f"{experiment}/{run_dir.parent.name}" if is_job else None
        given = {
            "mode": wandb_mode(node.get("mode")),
            "name": node.get("name") or own_name,
            "group": node.get("group") or sweep,
        }
        made = make(node | given, save_dir=run_dir, id=before or secrets.token_hex(4))
        made._wandb_init.pop("anonymous", None)  # Lightning gives it always, and W&B warns of it
        return made
    if target.endswith(".MLFlowLogger"):
        store = node.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI") or MLFLOW_STORE
        given = {"tracking_uri": store, "run_name": node.get("run_name") or own_name}
        return make(node | given, run_id=before)
    return make(node, save_dir=run_dir)


def wandb_mode(wanted: str | None) -> str:
    """How W&B works, so that it neither asks for a login nor waits for a network.

    What is wanted, else what WANDB_MODE says, else online where a login is known and offline
    elsewhere.

    Raises:
        UserError: online is wanted without a login.
    """
    mode = wanted or os.environ.get("WANDB_MODE")
    if mode == "online" and not knows_login():
        raise UserError("W&B is to be online, and nobody is logged in: set WANDB_API_KEY, or run "
                        "`wandb login`, or take logger.wandb.mode=offline")  # fmt: skip
    return mode or ("online" if knows_login() else "offline")


def knows_login() -> bool:
    """Whether W&B finds a key without asking: in WANDB_API_KEY, or where `wandb login` puts it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def stored_runs(run_dir: Path) -> dict[str, str]:
    """The ids of runs at W&B and MLflow by the loggers' names; none where there is no record."""
    if not (run_dir / RECORD).is_file():
        return {}
    return read_record(run_dir / RECORD, {})


@contextlib.contextmanager
def open_loggers(
    loggers: list[Logger], hyperparameters: dict, config: Recipe, run_dir: Path
) -> Iterator[None]:
    """Begins the runs of the loggers with the hyper-parameters, and ends them whatever happens.

    To be entered by the first process alone.

    Raises:
        UserError: a server does not answer.
    """
    names = list(config.get("logger", {}))
    before = stored_runs(run_dir) if config["resume"] else {}
    runs = {}
    for name, one in zip(names, loggers, strict=True):
        try:
            if isinstance(one, WandbLogger | MLFlowLogger):
                _ = one.experiment
                runs[name] = str(one.version)
            # TensorBoard gets them with the results; at MLflow they cannot be given a second time.
            if not isinstance(one, TensorBoardLogger) and not (
                isinstance(one, MLFlowLogger) and name in before
            ):
                one.log_hyperparams(hyperparameters)
        except Exception as error:  # of a network, in the many ways of two packages
            message = visible(str(error).splitlines()[0] if str(error) else repr(error))
            raise UserError(f"logger={name} cannot begin: {message}") from error
        logger.info("logger      %s", place(name, one))
    if runs:
        write_json(run_dir / RECORD, runs)
    failed = True
    try:
        yield
        failed = False
    finally:
        for one in loggers:
            if isinstance(one, WandbLogger):
                one.experiment.finish(exit_code=int(failed))
            else:
                one.finalize("failed" if failed else "success")


def place(name: str, one: Logger) -> str:
    """Where to look at what a logger writes."""
    if isinstance(one, WandbLogger):
        run = one.experiment
        where = run.url if not run.offline else f"offline; later: wandb sync {Path(run.dir).parent}"
        return f"{name}: {where}"
    if isinstance(one, MLFlowLogger):
        return f"{name}: {one._tracking_uri}, run {one.version}"
    return f"{name}: {one.log_dir}"


def write_picture(loggers: Iterable[Logger], tag: str, picture: np.ndarray, step: int) -> None:
    """A picture (H, W, 3) uint8, where there is room for pictures."""
    for one in loggers:
        if isinstance(one, TensorBoardLogger):
            one.experiment.add_image(tag, picture, step, dataformats="HWC")
        elif isinstance(one, WandbLogger):
            one.log_image(tag, [picture], step=step)
        elif isinstance(one, MLFlowLogger):
            one.experiment.log_image(one.run_id, picture, f"{file_name(tag)}/{step:07}.png")


def write_table(loggers: Iterable[Logger], tag: str, rows: Rows, step: int) -> None:
    """A table, whose first row are its titles, where there is room for tables."""
    text = markdown_table(rows)
    for one in loggers:
        if isinstance(one, TensorBoardLogger):
            one.experiment.add_text(tag, text, step)
        elif isinstance(one, WandbLogger):
            one.log_table(tag, columns=rows[0], data=rows[1:], step=step)
        elif isinstance(one, MLFlowLogger):
            one.experiment.log_text(one.run_id, text, f"{file_name(tag)}/{step:07}.md")


def write_scores(
    loggers: Iterable[Logger],
    scores: dict[str, float],
    shown: dict[str, Any],
    step: int,
    run_dir: Path,
    checkpoint: Path,
) -> None:
    """The final scores, and where checkpoint and report lie.

    Args:
        loggers: of the run.
        scores: by their tags.
        shown: what tells runs apart in TensorBoard, which shows few columns at once.
        step: the last.
        run_dir: of the run.
        checkpoint: that was evaluated.
    """
    files = ("config.yaml", "results.json")
    for one in loggers:
        one.log_metrics(scores, step=step)
        if isinstance(one, TensorBoardLogger):
            one.log_hyperparams(shown, metrics=scores)
            one.experiment.add_text("config", f"```yaml\n{(run_dir / files[0]).read_text()}\n```")
            one.experiment.add_text("checkpoint", markdown(str(checkpoint)))
        elif isinstance(one, MLFlowLogger):
            one.experiment.set_tag(one.run_id, "checkpoint", str(checkpoint))
            for file in files:
                one.experiment.log_artifact(one.run_id, str(run_dir / file))
        else:
            one.log_hyperparams({"checkpoint": str(checkpoint)})


def markdown_table(rows: Rows) -> str:
    """Rows as Markdown; the first are titles, and all columns but the first are numbers."""
    escaped = [[markdown(cell) for cell in row] for row in rows]
    escaped.insert(1, ["---"] + ["---:"] * (len(rows[0]) - 1))
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped)


def file_name(tag: str) -> str:
    """A tag as a path below the artifacts of MLflow, which leads nowhere else."""
    parts = (re.sub(r"[^\w. -]+", "_", part).strip(". ") for part in tag.split("/"))
    return "/".join(part or "_" for part in parts)
