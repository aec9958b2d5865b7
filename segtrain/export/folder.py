"""A network as a folder that `segtrain.load` reads without the training data."""

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from segtrain import __version__
from segtrain.label_set import LabelSet
from segtrain.report.results import environment


def describe(
    task: str,
    architecture: dict,
    inference: dict,
    labels: LabelSet,
    name: str,
    white_level: float | None = None,
) -> dict:
    """What a network is, as plain values: the folder's `config.json`, and metadata of other files.

    Args:
        task: semantic, multilabel, panoptic, instance or proposal.
        architecture: configuration node, whose backbone fetches no weights.
        inference: configuration node.
        labels: the classes.
        name: the experiment's.
        white_level: of images of more than 8 bits a channel; None: of each by its own range.
    """
    return {
        "segtrain": __version__,
        "task": task,
        "architecture": architecture,
        "inference": inference,
        "labels": labels.to_plain(),
        "experiment": name,
        "white_level": white_level,
        "git_revision": environment()["git_revision"],
    }


def write_folder(model: nn.Module, folder: Path, description: dict) -> None:
    """Writes `config.json` and `model.safetensors` into a new folder."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(description, indent=2) + "\n")
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def unequal_tensors(model: nn.Module, other: nn.Module) -> list[str]:
    """Names of weights and buffers in which two networks differ at all."""
    own, others = model.state_dict(), other.state_dict()
    return [
        name
        for name in sorted(own.keys() | others.keys())
        if name not in own or name not in others or not own[name].equal(others[name])
    ]
