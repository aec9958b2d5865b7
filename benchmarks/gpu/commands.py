"""segtrain's own commands, in this process or in one of their own, and small runs for them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from benchmarks.gpu.cell import Setting, Skipped
from segtrain.assembly import build_data, build_task, make
from segtrain.cli import app, launch
from segtrain.configuration.folder import conf_dir
from segtrain.errors import UserError

# The quickstart's network, data and budget, small enough for a test of the command on a CPU.
TINY = (
    "dataset.source.num_images={train: 12, val: 6, test: 6}", "dataset.source.size=[32, 32]",
    "dataset.transform.crop_size=[32, 32]", "dataset.num_workers=0", "trainer.max_steps=4",
    "trainer.val_every_n_steps=4", "trainer.log_every_n_steps=2", "batch_size=4",
)  # fmt: skip
TINY_INSTANCES = (
    "dataset.source.num_images={train: 6, val: 4, test: 4}", "dataset.source.size=[64, 64]",
    "dataset.transform.short_side=[64, 64]", "dataset.transform.long_side=64",
    "dataset.num_workers=0", "trainer.max_steps=2", "trainer.val_every_n_steps=2",
    "trainer.log_every_n_steps=2", "batch_size=2",
)  # fmt: skip
LAST_LINES = 6  # of a command's complaints


def config_of(setting: Setting, command: str, overrides: Sequence[str]) -> dict:
    """The resolved configuration of a command on the cell's device."""
    given = [*overrides]
    if not setting.has_gpu and command != "export":  # which has no trainer
        given.append("trainer.accelerator=cpu")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = compose(command, given, return_hydra_config=True)
    chosen = composed.hydra.runtime.choices.get("experiment")
    plain = {key: value for key, value in composed.items() if key not in ("hydra", "sweep")}
    OmegaConf.set_struct(composed, False)
    config = OmegaConf.to_container(
        OmegaConf.masked_copy(composed, list(plain)), resolve=True, throw_on_missing=True
    )
    if command in ("train", "benchmark"):
        config["experiment"] = chosen
    if config.get("trainer"):
        launch.count_processes(config["trainer"])
    return config


def start(
    setting: Setting,
    command: str,
    overrides: Sequence[str],
    run_dir: Path,
    values: dict | None = None,
) -> dict:
    """Runs a command in this process; the content of its `results.json`, where it writes one.

    Args:
        setting: of the cell.
        command: its name.
        overrides: of its configuration.
        run_dir: where it writes.
        values: by key, put into the configuration as they are, such as paths.
    """
    app.start(command, config_of(setting, command, overrides) | (values or {}), run_dir)
    results = run_dir / "results.json"
    return json.loads(results.read_text()) if results.is_file() else {}


def rows(setting: Setting, overrides: Sequence[str], measure: dict | None = None) -> list[dict]:
    """The rows of `segtrain benchmark measure=...`, measured in this process.

    Args:
        setting: of the cell.
        overrides: of the configuration.
        measure: more settings of the measurement.
    """
    config = config_of(setting, "benchmark", overrides)
    return make(config["measure"] | (measure or {}))(config)


def data_or_skip(setting: Setting, overrides: Sequence[str]) -> tuple[str, int]:
    """A split of a data set that is there, what it trains on or else validates on, and its images.

    Raises:
        Skipped: neither is.
    """
    data = build_data(config_of(setting, "train", [*overrides, "trainer.max_steps=1"]))
    for split in (data.splits["train"], data.splits["val"]):
        try:
            return split, len(data.labelled_source(split))
        except UserError as error:
            reason = str(error).partition("\n")[0]
    raise Skipped(f"the data set is not there: {reason}")


def begin(arguments: Sequence[str], folder: Path) -> subprocess.Popen:
    """`segtrain` in a process of its own, which writes into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "segtrain", *arguments], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        env={**os.environ, "SEGTRAIN_TRACEBACK": ""},
    )  # fmt: skip


def finish(process: subprocess.Popen, codes: Sequence[int] = (0,)) -> None:
    """Waits for it.

    Raises:
        RuntimeError: its exit code is another; with its last lines.
    """
    out, _ = process.communicate()
    print(out)
    if process.returncode not in codes:
        lines = [line.strip() for line in out.splitlines() if line.strip()]
        raise RuntimeError(f"exit code {process.returncode}: {' / '.join(lines[-LAST_LINES:])}")


def device_override(setting: Setting) -> str:
    """For commands in processes of their own."""
    return f"trainer.accelerator={'gpu' if setting.has_gpu else 'cpu'}"


def small_run(setting: Setting, steps: int = 12) -> list[str]:
    """Overrides of a training of few steps, of the quickstart."""
    own = ["experiment=quickstart", "report=null", "callback=[ema]", "logger=csv"]
    if setting.tiny:
        return [*own, *TINY]
    return [*own, "dataset.source.num_images={train: 2000, val: 16, test: 16}", *few(steps)]


def small_detector(setting: Setting, steps: int = 12) -> list[str]:
    """The same of Mask R-CNN."""
    own = ["experiment=mask_rcnn_shapes", "report=null", "callback=[ema]", "logger=csv"]
    if setting.tiny:
        return [*own, *TINY_INSTANCES]
    return [*own, "dataset.source.num_images={train: 200, val: 8, test: 8}", *few(steps)]


def few(steps: int) -> list[str]:
    """Overrides for so many steps, one validation and few workers."""
    return [f"trainer.max_steps={steps}", f"trainer.val_every_n_steps={steps}",
            "trainer.log_every_n_steps=5", "dataset.num_workers=2"]  # fmt: skip


def quickstart(setting: Setting) -> Path:
    """The run folder of the whole quickstart, which is trained where it was not yet."""
    run_dir = setting.scratch / "quickstart"
    if not (run_dir / "results.json").is_file():
        tiny = TINY if setting.tiny else ()
        start(setting, "train", ["experiment=quickstart", "report=null", *tiny], run_dir)
    return run_dir


def untrained(setting: Setting, name: str, overrides: Sequence[str]) -> Path:
    """A checkpoint of a network with random weights, as a training writes it."""
    path = setting.scratch / f"{name}.ckpt"
    if not path.exists():
        config = config_of(setting, "train", overrides)
        torch.manual_seed(0)
        task = build_task(config, make(config["dataset"]["labels"]))
        entry = {"config": config, "epochs": 0.0, "labels": task.labels.to_plain()}
        state = {f"model.{key}": value for key, value in task.model.state_dict().items()}
        torch.save({"state_dict": state, "global_step": 0, "segtrain": entry}, path)
    return path
