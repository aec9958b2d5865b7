"""The configuration of a sweep's best job as an experiment file that can be run as it is."""

from pathlib import Path

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from segtrain.headlines import TITLES
from segtrain.sweep.ledger import Ledger, percent
from segtrain.writing import write_text

BEST = "best.yaml"


def write_best(ledger: Ledger, loader: ConfigLoader) -> Path | None:
    """Writes `best.yaml` into the sweep's folder, of the best training that was finished.

    Returns:
        Its path; None where there is none, or the sweep is one of another command.
    """
    best = next(iter(ledger.entries()), None)
    if ledger.command != "train" or best is None or best["state"] != "done":
        return None
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(best["overrides"])
    content, lost = experiment(parsed, loader)
    path = ledger.folder / BEST
    name = TITLES.get(best["metric"], best["metric"])
    head = [
        "# @package _global_",
        f"# Job {best['job']} of {ledger.folder}: best val {name} {percent(best['validation'])}%, "
        f"{best['split']} {name} {percent(best['value'])}%",
        f"# segtrain experiment={path}",
        *(f"# cannot be said in a file, give it on the command line: {line}" for line in lost),
    ]
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None)
    write_text(path, "\n".join(head) + "\n" + text)
    return path


def experiment(overrides: list[Override], loader: ConfigLoader) -> tuple[dict, list[str]]:
    """The content of an experiment file that does what overrides do.

    Returns:
        The content, and the overrides that a file cannot hold.
    """
    defaults: list = []
    groups: list = []
    values: dict = {}
    lost: list[str] = []
    for override in overrides:
        key = override.key_or_group
        if override.is_hydra_override() or key == "sweep" or key.startswith("sweep."):
            continue
        if override.is_delete():
            lost.append(override.input_line)
        elif key == "experiment":
            if override.value() is not None:
                defaults.append(override.value())
        elif loader.get_group_options(key, results_filter=ObjectType.CONFIG):
            groups.append({f"override /{key}": override.value()})
        else:
            put(values, key.split("."), override.value())
    return {"defaults": [*defaults, "_self_", *groups], **values}, lost


def put(node: dict, keys: list[str], value: object) -> None:
    """Sets the value of a nested key."""
    *parents, last = keys
    for key in parents:
        node = node.setdefault(key, {})
    node[last] = plain(value)


def plain(value: object) -> object:
    """A parsed value without its quotes and casts."""
    if isinstance(value, dict):
        return {plain(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    return getattr(value, "text", value)
