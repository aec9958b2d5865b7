"""A trained network as its files hold it: a run folder, a checkpoint, or an exported folder."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segtrain.architecture.imagenet import untrained
from segtrain.architecture.weights import read_state_dict
from segtrain.checkpoints import find_checkpoint
from segtrain.configuration.checking import checked_stored
from segtrain.configuration.schema import Recipe
from segtrain.errors import UserError
from segtrain.foreign import admit
from segtrain.foreign import read_checkpoint as read_file
from segtrain.label_set import LabelSet
from segtrain.values import Node
from segtrain.zoo.described import Described, read_described
from segtrain.zoo.folder import CONFIG, WEIGHTS, folder_of


class NotOwnError(UserError):
    """A readable file that no training of this package wrote."""


class Trained(NamedTuple):
    """What rebuilds a network and says what it sees. Nothing of it has been built yet."""

    origin: str  # what messages call it
    config: Recipe  # with the nodes `architecture` and `inference`, and the name `experiment`
    labels: LabelSet | None  # None where an older checkpoint does not hold them
    state: dict[str, Tensor]


def fingerprint(trained: Trained) -> str:
    """SHA-256 of weights, architecture and classes, wherever the file lies."""
    labels = None if trained.labels is None else trained.labels.to_plain()
    told = json.dumps([trained.config["architecture"], labels], sort_keys=True, default=str)
    found = hashlib.sha256(told.encode())
    for name, tensor in sorted(trained.state.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def white_level(config: Mapping[str, Any]) -> float | None:
    """What was white in the images of more than 8 bits a channel that a network has seen.

    Args:
        config: of a run or of an exported folder.

    Returns:
        None where it has seen none, or each was read by its own range.
    """
    source = config.get("dataset", {}).get("source", {})
    found = config.get("white_level", source.get("white_level"))
    return None if found == "auto" else found


def read_trained(source: Path, trust_code: bool = False) -> Trained:
    """What a run folder, a checkpoint, or an exported folder (or its file) holds.

    Args:
        source: the folder or file.
        trust_code: whether it may name classes that are not part of this package.

    Raises:
        UserError: it is none of them, damaged, or names other code.
    """
    if (folder := folder_of(source)) is not None:
        return read_exported(folder, trust_code)
    if source.is_dir() and not (source / "checkpoints").is_dir():
        raise UserError(f"{source}: neither a run folder, which has checkpoints/, nor an exported "
                        f"one, which has {CONFIG} and {WEIGHTS[0]}")  # fmt: skip
    key = "run" if source.is_dir() else "checkpoint"
    file = find_checkpoint({"run": None, "checkpoint": None, key: source})
    return read_checkpoint(file, trust_code)


def read_checkpoint(path: Path, trust_code: bool = False) -> Trained:
    """What a checkpoint of this package holds.

    Raises:
        UserError: it is not one, or names other code.
    """
    content = _segtrain_entry(path, trust_code)
    labels = content.get("labels")
    parts = ("architecture", "inference", "experiment")
    return Trained(
        origin=str(path),
        config=checked_stored(content["config"], parts, str(path)),
        labels=None if labels is None else LabelSet.from_plain(labels),
        state=read_state_dict(path),
    )


def read_exported(folder: Path, trust_code: bool = False) -> Trained:
    """What a folder holds that `segtrain export` wrote, with `config.json` and the weights.

    Raises:
        NotOwnError: it is another project's.
        UserError: a file is missing or damaged, or names other code.
    """
    return exported(read_described(folder, trust_code), folder)


def exported(found: Described, folder: Path) -> Trained:
    """As `read_exported`, of a folder that was read."""
    config_file = folder / CONFIG
    if found.overrides is not None:
        raise NotOwnError(f"{config_file}: a network of transformers, which weights={folder} takes")
    try:
        labels = LabelSet.from_plain(found.content["labels"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{config_file}: not the description of a network ({error!r})") from None
    config = checked_stored(found.content, ("architecture", "inference"), str(config_file))
    return Trained(str(folder), config, labels, found.state)


def stored_config(checkpoint: Path, trust_code: bool = False) -> tuple[dict, dict]:
    """Configuration of the run that wrote the checkpoint, and how far it had trained.

    Raises:
        UserError: it is no checkpoint of this package, or names other code.
    """
    content = _segtrain_entry(checkpoint, trust_code)
    return content["config"], {key: content[key] for key in ("global_step", "epochs")}


def best_score(checkpoint: Path) -> float | None:
    """The headline metric with which a `best.ckpt` was chosen; None where there is no such file.

    Raises:
        UserError: it is no checkpoint of this package.
    """
    return _segtrain_entry(checkpoint, True)["best_score"] if checkpoint.is_file() else None


def require_resumable(checkpoint: Path) -> None:
    """Looks whether a training can go on from a checkpoint, before anything is built.

    Raises:
        UserError: it is no checkpoint of this package, or holds no state of a training.
    """
    _segtrain_entry(checkpoint, True)
    kinds = {"optimizer_states": list, "lr_schedulers": list, "loops": dict, "callbacks": dict}
    require_keys(read_file(checkpoint, "checkpoint to resume from"), kinds, checkpoint)


def require_keys(content: dict, kinds: dict, checkpoint: Path) -> None:
    """Raises a UserError where a key is missing or of another kind."""
    for key, kind in kinds.items():
        if not isinstance(content.get(key), kind):
            raise UserError(f"{checkpoint}: not a checkpoint of segtrain, or a damaged one: its "
                            f"'{key}' is {'of another kind' if key in content else 'missing'}"
                            )  # fmt: skip


def _segtrain_entry(checkpoint: Path, trust_code: bool) -> dict:
    """What the run wrote into its checkpoint beside the weights, the step, and the best score."""
    content = read_file(checkpoint, "checkpoint of segtrain")
    if not isinstance(content, dict) or not isinstance(content.get("segtrain"), dict):
        raise NotOwnError(
            f"{checkpoint}: not a checkpoint of segtrain, it has no entry 'segtrain'; a file of "
            f"another project is weights={checkpoint}, a published network weights=<zoo>/<name>, "
            "such as weights=torchvision/<name>"
        )
    entry = content["segtrain"]
    require_keys(entry, {"config": dict, "epochs": int | float}, checkpoint)
    require_keys(content, {"state_dict": dict, "global_step": int}, checkpoint)
    best = content.get("callbacks", {}).get("Checkpoints", {}).get("best_score")
    config = admit(entry["config"], str(checkpoint), trust_code)
    return {"global_step": content["global_step"], "best_score": best, **entry, "config": config}


def without_pretraining(architecture: Node) -> dict:
    """The same network without fetching initial weights that a checkpoint replaces anyway."""
    backbone = architecture["backbone"]
    return architecture | {"backbone": backbone | {"weights": untrained(backbone["weights"])}}
