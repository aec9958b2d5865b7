"""The zoos' rows, from conf/zoo/<zoo>.yaml.

A file of a zoo holds

    title, source, address, licence   of the zoo; `address` stands before every `file` that is none
    shared:                           settings of several rows, by name
    models:                           rows by name; `like: [a, b]` takes shared settings in turn

A row's settings are the fields of `Entry`, and `file`. Later settings win; lists are joined, and
dictionaries (`protocols`) merged.
"""

import difflib
import fnmatch
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from urllib.parse import urljoin

import yaml

from segtrain.configuration.folder import conf_dir
from segtrain.errors import UserError
from segtrain.zoo.entry import Entry, Protocol
from segtrain.zoo.files import cached_file, file_name
from segtrain.zoo.hub import is_hub, repository_of

SHOWN = 8  # rows in a message


def zoo_names() -> list[str]:
    """The zoos that there are."""
    return sorted(path.stem for path in (conf_dir() / "zoo").glob("*.yaml"))


@cache
def entries(zoo: str) -> dict[str, Entry]:
    """The rows of a zoo by name."""
    content = yaml.load((conf_dir() / "zoo" / f"{zoo}.yaml").read_text(), yaml.CSafeLoader)
    return {name: _entry(zoo, name, row, content) for name, row in content["models"].items()}


def every() -> list[Entry]:
    """All rows of all zoos."""
    return [entry for zoo in zoo_names() for entry in entries(zoo).values()]


def is_row(weights: str) -> bool:
    """Whether `weights` names a zoo, with `<zoo>/` in front, and no file; or a row of the hub's."""
    if is_hub(weights):
        name = weights.removeprefix("hf:").removeprefix("hf/").partition("@")[0]
        return name in entries("hf")
    return weights.partition("/")[0] in zoo_names() and not Path(weights).is_file()


def is_published(weights: str) -> bool:
    """Whether `weights` names a row, or any repository of the hub."""
    return is_row(weights) or is_hub(weights)


def find(weights: str) -> Entry:
    """The row that `<zoo>/<name>` or `hf:<owner>/<name>` names, of whatever revision.

    Raises:
        UserError: there is no such zoo, or it has no such row.
    """
    if is_hub(weights):
        repository = repository_of(weights)
        weights = f"hf/{repository.owner}/{repository.name}"
    zoo, _, name = weights.partition("/")
    if zoo not in zoo_names():
        raise UserError(f"there is no zoo '{zoo}'; there are {', '.join(zoo_names())}")
    known = entries(zoo)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=SHOWN, cutoff=0.0)
        rest = f"; `segtrain zoo zoo={zoo}` lists all {len(known)}" if len(known) > SHOWN else ""
        raise UserError(f"{zoo} has no '{name}'; it has: "
                        + ", ".join(known[row].weights for row in near) + rest)  # fmt: skip
    return known[name]


def licence_of(weights: str) -> str:
    """What is known of the licence of a network of the hub."""
    if is_row(weights):
        return find(weights).licence
    return f"see {repository_of(weights).page}"


def select(
    patterns: Sequence[str] = ("*",),
    zoo: str | None = None,
    system: str | None = None,
    dataset: str | None = None,
) -> list[Entry]:
    """The rows that patterns name, in the order of the zoos, of those that have what is asked for.

    Args:
        patterns: of what `weights=` takes, or of the name alone.
        zoo: of the rows; also a pattern, as the next two. None for any.
        system: without regard to case.
        dataset: option of `conf/dataset`.

    Raises:
        UserError: a pattern names no row, or none has what is asked for.
    """
    known = every()
    for pattern in patterns:
        if not any(_matches(row, pattern) for row in known):
            names = [row.weights for row in known]
            near = difflib.get_close_matches(pattern, names, n=SHOWN, cutoff=0.3)
            raise UserError(f"no published network is called '{pattern}'; "
                            + (f"nearest: {', '.join(near)}" if near else "`segtrain zoo` lists "
                               "them"))  # fmt: skip
    wanted = {"zoo": zoo, "system": system, "dataset": dataset}
    found = [row for row in known if any(_matches(row, pattern) for pattern in patterns)]
    for key, value in wanted.items():
        having = [row for row in found if value is None or _fits(getattr(row, key), value)]
        if not having:
            others = sorted({getattr(row, key) for row in found})
            raise UserError(f"{key}={value}: there are {', '.join(others)}")
        found = having
    return found


def _matches(row: Entry, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in (row.weights, row.name))


def _fits(value: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(value.lower(), pattern.lower())


def row_of_file(file: str | Path) -> Entry | None:
    """The row whose file is called as one on the disk; None where it is none's, or of several."""
    found = [row for row in every() if Path(file).name in (file_name(row), cached_file(row).name)]
    return found[0] if len(found) == 1 else None


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
        epsilon=merged.get("epsilon"),
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
