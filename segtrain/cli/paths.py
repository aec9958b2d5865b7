"""Paths on the command line, whatever characters they have: `run=it's (v2), a=b` needs no quotes.

Hydra's grammar gives meaning to spaces, commas, brackets, quotes and the like; here they become
text before it sees them.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

# Last parts of the keys that take a path, or several; and whole keys, whose last parts others have.
KEYS = (
    "checkpoint", "dir", "ensemble", "input", "model", "output", "resume", "root", "run", "runs",
    "shard_cache", "weights", "weights_file",
)  # fmt: skip
WHOLE_KEYS = (
    "dataset.shards", "dataset.source.annotations", "dataset.source.images", "from", "images", "to",
)  # fmt: skip
ONE = r"""\s*(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")\s*"""
QUOTED = re.compile(f"{ONE}(?:,{ONE})*", re.DOTALL)
MAPPING = re.compile(r"\{\s*\w+:.*\}", re.DOTALL)
CHOICES = re.compile(r"(choice|glob|range|sort|shuffle|tag)\(.*\)")  # of a sweep


def literal(text: str | Path) -> str:
    """A text in quotes, which Hydra reads as it is; `${...}` in it stays an interpolation."""
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + found[2].replace("'", r"\'"),
                     str(text))  # fmt: skip
    return f"'{escaped}'"


def with_literal_paths(overrides: Iterable[str], is_sweep: bool) -> list[str]:
    """The overrides, their paths as Hydra takes them.

    Args:
        overrides: `key=value`, flags and others, which are left.
        is_sweep: whether commas between paths part the values of several runs.
    """
    return [_literal_path(override, is_sweep) for override in overrides]


def _literal_path(override: str, is_sweep: bool) -> str:
    key, equals, value = override.partition("=")
    name = key.lstrip("+")
    takes_path = name.rpartition(".")[2] in KEYS or name in WHOLE_KEYS
    if not takes_path or not equals or value in ("", "null"):
        return override
    if os.path.lexists(value):
        return f"{key}={literal(_without_interpolation(value))}"
    if QUOTED.fullmatch(value) or MAPPING.fullmatch(value):
        return override
    if value[0] + value[-1] == "[]":
        return f"{key}=[{','.join(map(_item, parted(value[1:-1])))}]"
    if is_sweep and CHOICES.fullmatch(value):
        return override
    if is_sweep and "," in value:
        return f"{key}={','.join(map(_item, parted(value)))}"
    return f"{key}={_item(value)}"


def parted(text: str) -> list[str]:
    """The paths between commas; a comma inside what exists, or inside its folder, is its own."""
    parts, paths = text.split(","), []
    while parts:
        joined = [",".join(parts[:size]).strip() for size in range(len(parts), 1, -1)]
        there = [path for path in joined if os.path.lexists(path)]
        path = (there or [path for path in joined if _is_inside(path)] or parts)[0]
        paths.append(path)
        parts = parts[path.count(",") + 1 :]
    return paths


def plain_path(value: str) -> str:
    """One path as it was typed, without quotes around it, and with the home folder."""
    value = value if os.path.lexists(value) else value.strip()
    if os.path.lexists(value):
        return value
    if re.fullmatch(ONE, value, re.DOTALL):
        return re.sub(r"\\(['\"])", r"\1", value[1:-1])
    return os.path.expanduser(value)


def _is_inside(path: str) -> bool:
    """Whether the folder of a path exists and has a comma in its own."""
    folder = os.path.dirname(path)
    return "," in folder and os.path.isdir(folder)


def _item(value: str) -> str:
    """One path, which may stand in quotes already, or begin with the home folder."""
    value = value.strip()
    if not value or value == "null" or QUOTED.fullmatch(value):
        return value
    if os.path.lexists(value):
        value = _without_interpolation(value)
    return literal(os.path.expanduser(value))


def _without_interpolation(path: str) -> str:
    return re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", path)
