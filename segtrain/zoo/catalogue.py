"""The zoos' rows, from conf/zoo/<zoo>.yaml.

A file of a zoo holds

    title, source, address, licence   of the zoo; `address` stands before every `file` that is none
    shared:                           settings of several rows, by name
    models:                           rows by name; `like: [a, b]` takes shared settings in turn

A row's settings are the fields of `Entry`, and `file`. Later settings win; lists are joined, and
dictionaries (`protocols`) merged.
"""

from functools import cache
from urllib.parse import urljoin

import yaml

from segtrain.cli.main import conf_dir
from segtrain.errors import UserError
from segtrain.zoo.entry import Entry, Protocol


def zoo_names() -> list[str]:
    """The zoos that there are."""
    return sorted(path.stem for path in (conf_dir() / "zoo").glob("*.yaml"))


@cache
def entries(zoo: str) -> dict[str, Entry]:
    """The rows of a zoo by name."""
    content = yaml.load((conf_dir() / "zoo" / f"{zoo}.yaml").read_text(), yaml.CSafeLoader)
    return {name: _entry(zoo, name, row, content) for name, row in content["models"].items()}


def find(weights: str) -> Entry:
    """The row that `<zoo>/<name>` names.

    Raises:
        UserError: there is no such zoo, or it has no such row.
    """
    zoo, _, name = weights.partition("/")
    if zoo not in zoo_names():
        raise UserError(f"there is no zoo '{zoo}'; there are {', '.join(zoo_names())}")
    if name not in entries(zoo):
        raise UserError(f"{zoo} has no '{name}'; `segtrain zoo` lists what there is")
    return entries(zoo)[name]


def _entry(zoo: str, name: str, row: dict, content: dict) -> Entry:
    merged: dict = {}
    for part in [*(content["shared"][part] for part in row.get("like", ())), row]:
        merged = _merge(merged, part)
    return Entry(
        zoo=zoo,
        name=name,
        system=merged["system"],
        address=urljoin(content["address"], merged["file"]),
        sha256=merged.get("sha256"),
        size=merged.get("size"),
        licence=merged.get("licence", content["licence"]),
        architecture=tuple(merged["architecture"]),
        dataset=merged["dataset"],
        classes=tuple(merged["classes"]) if "classes" in merged else None,
        split=merged["split"],
        protocols={
            key: Protocol(tuple(value["inference"]), value["published"])
            for key, value in merged["protocols"].items()
        },
        note=merged.get("note"),
        sha1=merged.get("sha1"),
        by_hand=merged.get("by_hand", False),
    )


def _merge(first: dict, second: dict) -> dict:
    merged = dict(first)
    for key, value in second.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        elif isinstance(value, list) and isinstance(merged.get(key), list):
            merged[key] = merged[key] + value
        else:
            merged[key] = value
    return merged
