"""Errors of Hydra, workers and the operating system, said in the user's terms."""

import difflib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from segtrain.cli.main import options
from segtrain.errors import RunStopped, UserError

CLOSE = 0.5  # likeness of names that may be each other's slip of the pen
# What other programs call a key.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "learning_rate": ("optimizer.lr",),
    "wd": ("optimizer.weight_decay",),
    "epochs": ("trainer.max_epochs",),
    "num_epochs": ("trainer.max_epochs",),
    "steps": ("trainer.max_steps",),
    "iterations": ("trainer.max_steps",),
    "max_iters": ("trainer.max_steps",),
    "batch": ("batch_size",),
    "bs": ("batch_size",),
    "workers": ("dataset.num_workers", "num_workers"),
    "data": ("dataset",),
    "model": ("architecture",),
    "network": ("architecture",),
    "size": ("dataset.transform.crop_size", "dataset.transform.short_side", "short_side"),
    "image_size": ("dataset.transform.crop_size", "dataset.transform.short_side", "short_side"),
    "imgsz": ("dataset.transform.crop_size", "dataset.transform.short_side", "short_side"),
    "gpus": ("trainer.devices",),
    "amp": ("trainer.precision", "precision"),
    "fp16": ("trainer.precision", "precision"),
    "source": ("input",),
    "images": ("input",),
    "out": ("output",),
    "conf": ("min_score",),
    "threshold": ("min_score",),
    "pretrained": ("architecture.backbone.weights", "weights"),
    "ckpt": ("checkpoint", "weights"),
    "clip": ("trainer.gradient_clip_val",),
}

WORKER_ERROR = "segtrain.errors.UserError: "
# What gloo and NCCL say of a process that has ended or cannot be reached.
LOST = re.compile(
    r"gloo/|Connection (closed|reset) by peer|Timed out waiting|remote process exited"
)
# An error of the operating system that names a file, and a worker's, which is handed over as text.
OS_ERROR = re.compile(r"\[Errno (\d+)\] [^\n]*?: '([^\n]+?)'(?: -> [^\n]*)?\s*$")
# What PyTorch says of a loader worker that was killed, or that has no room for its batch.
DIED = re.compile(
    r"DataLoader worker \(pid[^\n]*|unable to \w+ (shared memory|file </torch_)[^\n]*"
)
SILENT = re.compile(r"DataLoader timed out after (\d+) seconds")
# What OpenCV, PyTorch and its libraries say where the host or a GPU has no memory left.
NO_MEMORY = re.compile(
    r"[^\n]*(can't allocate memory|not enough memory|Insufficient memory|out of memory"
    r"|(CUBLAS|CUDNN)_STATUS_ALLOC_FAILED)[^\n]*"
)


def explain(error: BaseException) -> tuple[str, int] | None:
    """Message and exit code, or None where only a traceback helps."""
    if isinstance(error, UserError):
        # A worker process hands over its traceback as text; the message is its last part.
        return str(error).rpartition(WORKER_ERROR)[2].strip(), 2
    if isinstance(error, RunStopped):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, MemoryError) or (no_memory := NO_MEMORY.search(str(error))):
        said = str(error) if isinstance(error, MemoryError) else no_memory[0]
        return (
            f"out of memory ({said.strip().rpartition(chr(10))[2][:200]}); lower batch_size, "
            "dataset.transform.crop_size or dataset.eval_batch_size, raise "
            "trainer.accumulate_grad_batches, or set trainer.precision=bf16-mixed; for predict "
            "lower batch_size or max_pixels"
        ), 1
    if isinstance(error, OSError) and (found := OS_ERROR.search(str(error))):
        number, path = found.groups()
        return f"{path}: {os.strerror(int(number))}; what was saved before is untouched", 1
    if isinstance(error, RuntimeError) and (died := DIED.search(str(error))):
        return (
            f"a loader worker died ({died[0]}); too little memory is the usual "
            "cause: lower dataset.num_workers (num_workers of predict) or batch_size, give a "
            "container more room in /dev/shm (docker run --shm-size=8g), or set the workers to 0 "
            "to see the error itself"
        ), 1
    if isinstance(error, RuntimeError) and (silent := SILENT.search(str(error))):
        return (
            f"the loader workers have given no batch for {silent[1]} s: a disk or a network share "
            "that they read hangs, or an image takes so long; raise dataset.timeout (timeout of "
            "predict), 0 waits for ever. What was saved before is untouched"
        ), 1
    if lost_process(error):
        return (
            "lost the connection to another process: it has ended, and said why before this line "
            "or on its own machine; or it cannot be reached "
            f"({str(error).splitlines()[0].partition(' This is typically')[0]})"
        ), 1
    if type(error).__module__.split(".")[0] in ("hydra", "omegaconf"):
        return explain_config(error), 2
    return None


def lost_process(error: BaseException) -> bool:
    """Whether the error is but the consequence of another process's end."""
    dist = sys.modules.get("torch.distributed")
    if dist is not None and isinstance(error, dist.DistNetworkError | dist.DistStoreError):
        return True
    return isinstance(error, RuntimeError) and LOST.search(str(error)) is not None


def explain_config(error: BaseException) -> str:
    """What Hydra or OmegaConf refused, with the nearest names."""
    text = str(error)
    kind = type(error).__name__
    if kind == "OverrideParseException":
        reason = error.message.splitlines()[0]
        return f"{error.override!r} cannot be read: expected key=value ({reason})"
    if text.startswith("Ambiguous value"):
        given = text.splitlines()[0].partition("'")[2].rstrip("'")
        key, _, values = given.partition("=")
        return f"{given}: expected one value; a list is {key}=[{values}], a sweep needs -m"
    full_key = getattr(error, "full_key", None) or getattr(error.__cause__, "full_key", None)
    if kind == "MissingMandatoryValue":
        return f"{full_key} is missing: give {full_key}=<value>"
    if "Interpolation" in kind or "ValidationError" in (kind, type(error.__cause__).__name__):
        reason = str(error.__cause__ or error).splitlines()[0]
        return f"{full_key}: {reason}" if full_key else reason
    plugin = re.search(r"Could not find 'hydra/launcher/(joblib|submitit)", text)
    if plugin:
        package = f"hydra-{plugin[1]}-launcher"
        return f"this sweep needs {package}: pip install 'segtrain[sweep]' (or {package})"
    missing = re.search(r"Could not find '([\w/-]+)/([^/']*)'", text)
    if missing:
        group, name = missing.groups()
        return f"unknown {group} '{name}'; {nearest(name, options(group))}{of_timm(group, name)}"
    refused = re.search(r"Could not override '([^']+)'", text)
    cause = error if getattr(error, "parent_node", None) is not None else error.__cause__
    parent = getattr(cause, "parent_node", None)
    key = refused.group(1) if refused else getattr(cause, "full_key", None)
    if key and parent is not None:
        return explain_key(key, parent)
    if refused:
        return f"unknown key '{key}'"
    appended = re.search(r"An item is already at '([^']+)'", text)
    if appended:
        return f"+{appended[1]}: the key is there already; without the plus: {appended[1]}=<value>"
    return text.splitlines()[0]


def explain_key(key: str, parent: Any) -> str:
    """Why a key cannot be set, and which key or sign is meant.

    Args:
        key: with all parts, such as `trainer.max_stepz`.
        parent: the node of the composed configuration that has no such key.
    """
    from omegaconf import OmegaConf, open_dict

    from segtrain.cli.schema import takes

    siblings = [str(name) for name in parent]
    if not siblings:
        return f"unknown key '{key}'; {key.rpartition('.')[0]} holds a value, not keys"
    root = parent._get_root()
    command = OmegaConf.select(root, "hydra.job.name")
    if command is None:
        return f"unknown key '{key}'; {nearest(key.rpartition('.')[2], siblings)}"
    with open_dict(root):
        root.pop("hydra")
    config = OmegaConf.to_container(root, resolve=False)
    group, name = [*key.split("."), ""][:2]
    if name in options(group) and name not in (config.get(group) or {}):
        both = ",".join([*(config.get(group) or {}), name])
        return f"unknown key '{key}': {name} is not chosen; choose it with {group}=[{both}]"
    if group not in config and options(group):
        return f"unknown key '{key}': no {group} is chosen; choose one of {chosen(group)}"
    if takes(command, config, key):
        return f"unknown key '{key}': it is not in the configuration yet; add it with +{key}=..."
    return f"unknown key '{key}'; {suggest(key, config, siblings)}"


def chosen(group: str) -> str:
    """The choices of a group, as the command line names them."""
    return f"{group}={'|'.join(options(group))}"


def of_timm(group: str, name: str) -> str:
    """How to get a backbone of timm of that name, where there may be one."""
    if "architecture" not in group or not name:
        return ""
    from segtrain.architecture.backbone import nearest_models

    found = nearest_models(name).partition("nearest: ")[2].split(", ")[0]
    if found == "none":
        return ""
    return f"; a backbone of timm: architecture/backbone=timm architecture.backbone.name={found}"


def suggest(key: str, config: dict, siblings: Sequence[str]) -> str:
    """The nearest right keys: of the same last part, of a well-known other name, or alike.

    Args:
        key: that does not exist.
        config: all that does.
        siblings: names that stand where `key` does.
    """
    known = [other for other in keys_of(config) if other != key]
    name = key.rpartition(".")[2]
    meant = [other for other in known if other.rpartition(".")[2] == name]
    meant += [other for other in SYNONYMS.get(name, ()) if other in known]
    if meant:
        return f"nearest: {', '.join(_as_choice(other) for other in meant[:3])}"
    if difflib.get_close_matches(name, siblings, n=1, cutoff=CLOSE):
        return nearest(name, siblings)
    last = {other.rpartition(".")[2]: other for other in reversed(known)}
    near = difflib.get_close_matches(name, last, n=3, cutoff=0.75)
    if near:
        return f"nearest: {', '.join(_as_choice(last[other]) for other in near)}"
    return nearest(name, siblings)


def keys_of(config: dict, prefix: str = "") -> Iterator[str]:
    """Every key of a configuration with all its parts, sections included."""
    for name, value in config.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from keys_of(value, f"{prefix}{name}.")


def _as_choice(key: str) -> str:
    """A key, or its group where it is one that is chosen."""
    group = key.replace(".", "/")
    return group if "/" in group and options(group) else key


def nearest(name: str, known: list[str]) -> str:
    """`nearest: a, b`, or the whole list where nothing is near."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=CLOSE)
    return f"nearest: {', '.join(near)}" if near else f"known: {', '.join(known)}"


def where_to_look(message: str) -> str:
    """How Python finds the user's own module that it has not found; empty for other messages."""
    missing = re.search(r"No module named '(\w+)", message)
    if missing is None or missing[1] in sys.modules:
        return ""
    name = missing[1]
    if not (Path(f"{name}.py").is_file() or Path(name).is_dir()):
        return f"\nPut the folder that holds {name} on PYTHONPATH, or install it"
    return (f"\n{name} lies in this folder, where the command `segtrain` does not look: "
            "python -m segtrain ... does, or PYTHONPATH=. segtrain ...")  # fmt: skip
