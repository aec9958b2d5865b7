"""A trained network as its files hold it: a run folder, a checkpoint, or an exported folder."""

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segtrain.architecture.weights import read_state_dict
from segtrain.contracts import LabelSet
from segtrain.errors import UserError

EXPORTED = ("config.json", "model.safetensors")
OWN_CODE = ("segtrain.architecture.", "segtrain.inference.", "segtrain.dataset.")


class Trained(NamedTuple):
    """What rebuilds a network and says what it sees. Nothing of it has been built yet."""

    origin: str  # what messages call it
    config: dict  # with the nodes `architecture` and `inference`, and the name `experiment`
    labels: LabelSet | None  # None where an older checkpoint does not hold them
    state: dict[str, Tensor]
    short_side: int | None  # that pictures are resized to, if the network is made for one size


def fingerprint(trained: Trained) -> str:
    """SHA-256 of weights, architecture and classes, wherever the file lies."""
    labels = None if trained.labels is None else trained.labels.to_plain()
    told = json.dumps([trained.config["architecture"], labels], sort_keys=True, default=str)
    found = hashlib.sha256(told.encode())
    for name, tensor in sorted(trained.state.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def read_trained(source: Path) -> Trained:
    """What a run folder, a checkpoint, or an exported folder (or its file) holds.

    Raises:
        UserError: it is none of them, or damaged.
    """
    if source.is_file() and source.name in EXPORTED:
        source = source.parent
    if source.is_dir() and all((source / name).is_file() for name in EXPORTED):
        return read_exported(source)
    if source.is_dir() and not (source / "checkpoints").is_dir():
        raise UserError(f"{source}: neither a run folder, which has checkpoints/, nor an exported "
                        f"one, which has {' and '.join(EXPORTED)}")  # fmt: skip
    key = "run" if source.is_dir() else "checkpoint"
    return read_checkpoint(find_checkpoint({"run": None, "checkpoint": None, key: source}))


def read_checkpoint(path: Path) -> Trained:
    """What a checkpoint of this package holds.

    Raises:
        UserError: it is not one.
    """
    content = _segtrain_entry(path)
    labels = content.get("labels")
    return Trained(
        origin=str(path),
        config=content["config"],
        labels=None if labels is None else LabelSet.from_plain(labels),
        state=read_state_dict(path),
        short_side=None,
    )


def read_exported(folder: Path) -> Trained:
    """What a folder with `config.json` and `model.safetensors` holds.

    Raises:
        UserError: one of the two is missing or damaged.
    """
    config_file, weights = (folder / name for name in EXPORTED)
    try:
        config = json.loads(config_file.read_text())
        labels = LabelSet.from_plain(config["labels"])
        missing = {"architecture", "inference"} - config.keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{config_file}: not the description of a network ({error!r})") from None
    if missing:
        raise UserError(f"{config_file}: has no {' and no '.join(sorted(missing))}")
    return Trained(str(folder), config, labels, read_state_dict(weights), short_side=None)


def find_checkpoint(config: dict) -> Path:
    """The file named by `checkpoint=` or the best (else last) one of `run=`."""
    if (config["run"] is None) == (config["checkpoint"] is None):
        raise UserError("give one of run=<run folder> and checkpoint=<file>")
    if config["checkpoint"] is not None:
        candidates = [Path(config["checkpoint"])]
    else:
        folder = Path(config["run"]) / "checkpoints"
        candidates = [folder / "best.ckpt", folder / "last.ckpt"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UserError(f"no checkpoint: {' and '.join(map(str, candidates))} do not exist")


def stored_config(checkpoint: Path) -> tuple[dict, dict]:
    """Configuration of the run that wrote the checkpoint, and how far it had trained."""
    content = _segtrain_entry(checkpoint)
    return content["config"], {key: content[key] for key in ("global_step", "epochs")}


def best_score(checkpoint: Path) -> float | None:
    """The headline metric with which a `best.ckpt` was chosen; None where there is no such file.

    Raises:
        UserError: it is no checkpoint of this package.
    """
    return _segtrain_entry(checkpoint)["best_score"] if checkpoint.is_file() else None


def _segtrain_entry(checkpoint: Path) -> dict:
    """What the run wrote into its checkpoint beside the weights, the step, and the best score."""
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        best = content.get("callbacks", {}).get("Checkpoints", {}).get("best_score")
        return {"global_step": content["global_step"], "best_score": best, **content["segtrain"]}
    except KeyError as error:
        raise UserError(f"{checkpoint}: not a checkpoint of segtrain, it has no entry {error}; a "
                        "file of torchvision's is used as weights=torchvision/<name>"
                        ) from None  # fmt: skip
    except Exception as error:  # torch raises many kinds for damaged files
        reason = str(error).partition("\n")[0]
        raise UserError(f"{checkpoint}: not a checkpoint of segtrain ({reason})") from None


def without_pretraining(architecture: dict) -> dict:
    """The same network without fetching initial weights that a checkpoint replaces anyway."""
    return architecture | {"backbone": architecture["backbone"] | {"weights": "none"}}


def require_own_code(node: Any, origin: str) -> None:
    """Refuses a file's configuration that names code from outside this package.

    Raises:
        UserError: says what the file would have run.
    """
    if isinstance(node, list):
        for part in node:
            require_own_code(part, origin)
    if not isinstance(node, dict):
        return
    for part in node.values():
        require_own_code(part, origin)
    target = node.get("_target_")
    if target == "hydra.utils.get_object":  # a label set by its name
        target = node.get("path")
    if target is None or (str(target).startswith(OWN_CODE) and _is_own(str(target), origin)):
        return
    raise UserError(f"{origin} names {target}, which is not part of segtrain: loading it would run "
                    "that code. Give trust_code=true if you trust the file")  # fmt: skip


def _is_own(target: str, origin: str) -> bool:
    """Whether the name is of something that this package defines, not merely imports."""
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise UserError(f"{origin} names {target}, which this version of segtrain has not; choose "
                        "another protocol, inference=..., if it is one, or train again"
                        ) from None  # fmt: skip
    return getattr(found, "__module__", type(found).__module__).startswith("segtrain.")
