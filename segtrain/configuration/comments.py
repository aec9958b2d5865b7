"""What the files of `conf/` say of themselves: comments, keys with defaults, choices."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

HIDDEN = ("_partial_", "defaults", "hydra")  # choices are told apart, Hydra's are the same always


class Key(NamedTuple):
    """One value of a configuration file."""

    name: str  # with dots
    value: str  # as it is written
    comment: str


def header(file: Path) -> list[str]:
    """The lines of the comment on top of a file."""
    lines = []
    for line in file.read_text().splitlines():
        if not line.startswith("#"):
            break
        if "@package" not in line:
            lines.append(line.removeprefix("#").strip())
    return lines


def choices(file: Path) -> dict[str, str]:
    """Option by group of a file's defaults list, as the command line has it; without Hydra's."""
    chosen = {}
    for entry in (yaml.safe_load(file.read_text()) or {}).get("defaults", []):
        for key, value in entry.items() if isinstance(entry, dict) else ():
            group = re.sub(r"^override |^/|@.*$", "", key).removeprefix("/")
            if not group.startswith("hydra"):
                chosen[group] = "null" if value is None else str(value).replace("'", "")
    return chosen


def keys(
    file: Path, prefix: str, described: Callable[[str], dict[str, str]] = lambda target: {}
) -> list[Key]:
    """The keys of a file with their defaults and meanings.

    Args:
        file: of `conf/`.
        prefix: of its keys, unless the file is about the whole configuration.
        described: meaning by argument of a `_target_`, for keys without a comment.
    """
    text = file.read_text()
    node = yaml.compose(text)
    if not isinstance(node, yaml.MappingNode):
        return []
    prefix = "" if "@package _global_" in text else prefix
    return list(_flattened(node, text.splitlines(), prefix, described))


def _flattened(
    node: yaml.MappingNode, lines: list[str], prefix: str, described: Callable
) -> Iterator[Key]:
    """The values of a mapping and of those inside it."""
    values = {key.value: value for key, value in node.value}
    meanings = described(values["_target_"].value) if "_target_" in values else {}
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        if key.value in HIDDEN:
            continue
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            yield from _flattened(value, lines, f"{name}.", described)
            continue
        comment = re.search(r"\s#\s(.*)$", lines[key.start_mark.line])
        text = comment[1] if comment else meanings.get(key.value, "")
        yield Key(name, _written(value, lines), text)


def _written(node: yaml.Node, lines: list[str]) -> str:
    """A value as it stands in its file; of lists of objects, how many there are."""
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        return f"{len(node.value)} entries"
    if isinstance(node, yaml.ScalarNode) and node.start_mark.line != node.end_mark.line:
        return node.value.strip()
    line = lines[node.start_mark.line]
    if node.start_mark.line != node.end_mark.line:
        return " ".join(yaml.serialize(node).split())
    return line[node.start_mark.column : node.end_mark.column].strip()
