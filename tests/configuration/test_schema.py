"""Every key of conf/ has a type, and no value of another one gets past the check of a command."""

import math
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import yaml
from conftest import unresolved
from omegaconf import OmegaConf

from segtrain.cli.main import GROUPS
from segtrain.configuration.checking import SCHEMAS, checked
from segtrain.configuration.folder import conf_dir, options
from segtrain.configuration.schema import Sweep
from segtrain.configuration.validation import validate
from segtrain.errors import UserError

FREE = ("architecture.backbone.timm_arguments", "overrides")  # what timm, and trainings, take
WRONG: dict[str, Any] = {
    "text": "surely not this", "blank": " ", "negative": -3, "fraction": 0.5, "zero": 0,
    "null": None, "nan": math.nan, "infinite": math.inf, "huge": 1e20, "empty": [], "list": [-1],
    "mapping": {"a": 1}, "true": True,
}  # fmt: skip
NEVER = ("nan", "infinite", "blank", "negative")  # whatever the key
SIGNED = ("published.value", "inference.logit_adjustment")
BLANK = ("logger.csv.name", "logger.csv.version", "logger.tensorboard.name",
         "logger.tensorboard.version", "dataset.preparation.note")  # fmt: skip


def keys(node: dict, prefix: str = "") -> Iterator[tuple[dict, str, str]]:
    """Every key below a node: its section, its name, and its full name."""
    for name, value in node.items():
        full = f"{prefix}{name}"
        yield node, name, full
        if isinstance(value, dict) and not full.startswith(FREE):
            yield from keys(value, f"{full}.")


def cases() -> Iterator[Any]:
    """Group, option, command and keys: each argument of each class, and option of each command."""
    seen: set[tuple] = set()
    for group in (*GROUPS, ""):
        for name in options(group) if group else SCHEMAS:
            if group == "sweep":
                continue
            of_name = name if group in ("trainer", "") and name in SCHEMAS else "train"
            command = "benchmark" if group == "measure" else of_name
            content = yaml.safe_load((conf_dir() / group / f"{name}.yaml").read_text())
            content = {k: v for k, v in content.items() if k not in ("defaults", "hydra")}
            prefix = f"{group.replace('/', '.')}." if group else ""
            new = []
            for section, key, full in keys(content, prefix):
                identity = (command, section.get("_target_", full), key)
                if identity not in seen and not full.startswith(FREE):
                    seen.add(identity)
                    new.append(full)
            if new:
                label = f"{group}={name}".lstrip("=").replace("/", "_")
                yield pytest.param(group, name, command, new, id=label)


def configuration(group: str, name: str, command: str) -> dict:
    """What the command checks once the option is chosen."""
    around = {"inference/window": ["inference=sliding"], "inference/crf": ["inference=whole"],
              "dataset/transform/scale_jitter": ["dataset=shapes_instances"]}  # fmt: skip
    overrides = [*around.get(group, []), f"{group}=[{name}]" if group == "callback" else
                 f"{group}={name}"]  # fmt: skip
    if not group:
        overrides = ["run=x"] if command == "report" else []
    config = unresolved(*overrides, command=command)
    return {k: v for k, v in OmegaConf.to_container(config, resolve=True).items() if k != "sweep"}


def refused(command: str, config: dict) -> str | None:
    """What the check says of a configuration; None if it says nothing."""
    try:
        checked(command, config)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("group", "name", "command", "names"), cases())
def test_no_wrong_value_gets_through(group, name, command, names):
    """It is refused, with its key, or is one that the key may have."""
    config = configuration(group, name, command)
    assert checked(command, config) == config
    for full in names:
        *sections, key = full.split(".")
        section = config
        for part in sections:
            section = section[part]
        before, refusals = section[key], 0
        for kind, wrong in WRONG.items():
            section[key] = deepcopy(wrong)
            refusal = refused(command, config)
            if refusal is None:
                assert kind not in NEVER or full in (*SIGNED, *BLANK), f"{full}={wrong}"
                continue
            assert full in refusal
            refusals += 1
        section[key] = before
        assert refusals, f"{full} has no type; give it one in its signature or in cli/schema.py"


@pytest.mark.parametrize("name", options("experiment"))
def test_every_experiment_is_right(name):
    config = OmegaConf.to_container(unresolved(f"experiment={name}"), resolve=True)
    assert checked("train", config) == config


@pytest.mark.parametrize("name", options("sweep"))
def test_sweeps(name):
    node = yaml.safe_load((conf_dir() / "sweep" / f"{name}.yaml").read_text())["sweep"]
    assert validate(Sweep, node, "sweep") == node
    for section, key, full in list(keys(node, "sweep.")):
        before = section[key]
        for kind in ("nan", "negative", "list", "huge"):
            section[key] = deepcopy(WRONG[kind])
            with pytest.raises(UserError, match=full.replace(".", r"\.")):
                validate(Sweep, node, "sweep")
        section[key] = before


@pytest.mark.parametrize("command", SCHEMAS)
def test_what_nothing_reads_is_refused(command):
    config = configuration("", command, command)
    for node, _, full in list(keys(config)):
        if full.startswith((*FREE, "callback")) or "." not in full:
            continue
        section = full.rpartition(".")[0]
        if section == "logger":  # several by names of their own
            continue
        if "counts" in section or "num_images" in section:  # by the names of the splits
            continue
        node["foo_bar"] = 1
        with pytest.raises(UserError, match=f"unknown key '{section}.foo_bar'"):
            checked(command, config)
        del node["foo_bar"]
    with pytest.raises(UserError, match="unknown key 'anything'"):
        checked(command, {**config, "anything": 1})
    for key in [name for name in config if name not in ("dataset", "inference", "callback")]:
        without = {name: value for name, value in config.items() if name != key}
        if key not in SCHEMAS[command].__optional_keys__:
            with pytest.raises(UserError, match=f"{key} is missing"):
                checked(command, without)
