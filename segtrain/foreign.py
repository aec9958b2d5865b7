"""The one gate for files that come from elsewhere: they are plain data, and run nothing.

Checkpoints, exported folders and the records of a run are made to be handed on, and the objects
they describe are built by the names that they hold. So nothing of such a file is used before it
has passed here.
"""

import io
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from types import UnionType
from typing import Any

import yaml

from segtrain.configuration.folder import conf_dir
from segtrain.errors import UserError

NAMES = ("_target_", "path")  # keys whose value is a name that is imported
IMPORTS = "hydra.utils.get_object"  # builds what `path` names
OVERRIDES = re.compile(r"_target_|\$\{(?!now:)|^-|hydra\.searchpath")
LARGEST = 1_000_000  # values of a configuration
PACKED = (".pth", ".pt", ".pkl")  # of what a zip archive may hold one
UNSUPPORTED = re.compile(r"WeightsUnpickler error: (.{1,200}?)(?: was not an allowed|\n|$)")
RATIO = 1.5  # of the tensors' bytes to those of their file, which does not compress them


def read_checkpoint(path: Path, expected: str) -> Any:
    """What a file of `torch.save` holds: tensors and plain values; memory-mapped.

    Also of a zip archive with one such file, and of a pickle (`.pkl`) of NumPy arrays, which become
    tensors. What other trainings keep beside the weights is `segtrain.pickles.Ignored`.

    Args:
        path: the file.
        expected: what messages call such a file.

    Raises:
        UserError: it is none, or damaged, or would take much more memory than its size, or holds
            anything else, which is not built.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such {expected}")
    try:
        return _load(path, path.suffix, path.stat().st_size)
    except UserError:
        raise
    except _InflatedError as error:
        raise UserError(f"{path}: not a readable {expected}: {error}") from None
    except Exception as error:  # torch and pickle raise many kinds for damaged files
        names = UNSUPPORTED.search(str(error))  # after advice to trust the file
        reason = names[1] if names else str(error).partition("\n")[0][:200] or repr(error)
        raise UserError(f"{path}: not a readable {expected} ({reason})") from None


class _InflatedError(Exception):
    """An archive would take much more memory than its file."""


def _load(file: Path | io.BytesIO, suffix: str, size: int) -> Any:
    """As `read_checkpoint`, of `size` bytes; they lie in memory where another archive held them."""
    import torch

    from segtrain.pickles import IGNORED, Ignored, read_arrays

    with torch.serialization.safe_globals([(Ignored, name) for name in IGNORED]):
        if not zipfile.is_zipfile(file):
            if suffix != ".pkl":
                return torch.load(file, map_location="cpu", weights_only=True)
            with open(file, "rb") if isinstance(file, Path) else file as opened:
                return read_arrays(opened)
        with zipfile.ZipFile(file) as archive:
            members = [entry for entry in archive.infolist() if not entry.is_dir()]
            inflated = sum(entry.file_size for entry in members)
            if inflated > RATIO * size:
                raise _InflatedError(f"its {size:,} bytes would become {inflated:,}")
            inner = Path(members[0].filename).suffix if len(members) == 1 else ""
            if isinstance(file, Path) and inner in PACKED:
                return _load(io.BytesIO(archive.read(members[0])), inner, inflated)
        if isinstance(file, Path):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)


def read_yaml(path: Path, trust_code: bool = False) -> Any:
    """A configuration or record of a run, admitted (see `admit`).

    Raises:
        UserError: there is none, it is no YAML, or names code from elsewhere.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    return admit(content, str(path), trust_code)


def read_record(path: Path, keys: Mapping[str, type | UnionType], trust_code: bool = False) -> dict:
    """A dictionary from a YAML or JSON file that a command wrote, admitted (see `admit`).

    Args:
        path: the file.
        keys: what it must hold, and of which kind.
        trust_code: see `admit`.

    Raises:
        UserError: as `read_yaml`; or it is no dictionary, or a key is missing or of another kind.
    """
    content = read_yaml(path, trust_code)
    if not isinstance(content, dict):
        kind = "nothing" if content is None else f"a {type(content).__name__}"
        raise UserError(f"{path}: holds {kind}, expected keys and values: {', '.join(keys)}")
    for key, kind in keys.items():
        if key not in content or not isinstance(content[key], kind):
            found = f"is {str(content[key])[:80]!r}" if key in content else "is missing"
            raise UserError(f"{path}: {key} {found}, expected {getattr(kind, '__name__', kind)}")
    return content


def admit(node: Any, origin: str, trust_code: bool = False) -> Any:
    """A configuration from a file as plain lists and dictionaries that name only own classes.

    What may be named is what stands in `conf/`. References (`${...}`) are refused as well: a
    stored configuration has none left, and some of them build configurations.

    Args:
        node: what was read.
        origin: what messages call the file.
        trust_code: whether it may name anything.

    Raises:
        UserError: says what the file would have run.
    """
    try:
        return _admit(node, origin, trust_code, count())
    except RecursionError:
        raise UserError(f"{origin} holds lists or dictionaries inside themselves") from None


def _admit(node: Any, origin: str, trust_code: bool, entries: Iterator[int]) -> Any:
    if next(entries) > LARGEST:
        raise UserError(f"{origin} holds more than {LARGEST:,} values, which is no configuration")
    if node is None or isinstance(node, bool | int | float):
        return node
    if isinstance(node, str):
        if "${" in node and not trust_code:
            raise UserError(f"{origin} holds the reference {node[:80]!r}, which a stored "
                            "configuration has not; write its value")  # fmt: skip
        return node
    if isinstance(node, list | tuple):
        return [_admit(part, origin, trust_code, entries) for part in node]
    if not isinstance(node, dict) or not all(isinstance(key, str | int) for key in node):
        raise UserError(f"{origin} holds a {type(node).__name__} that is not made of text, numbers,"
                        " lists and dictionaries named by text")  # fmt: skip
    if not trust_code and "_target_" in node:
        names = [node[key] for key in NAMES if key == "_target_" or node["_target_"] == IMPORTS]
        for name in names:
            if not isinstance(name, str) or name not in own_names():
                raise UserError(
                    f"{origin} names {name}, which is not part of segtrain: loading it would run "
                    "that code. Give trust_code=true if you trust the file"
                )
    return {key: _admit(value, origin, trust_code, entries) for key, value in node.items()}


def admit_overrides(
    overrides: Sequence[str], origin: str, trust_code: bool = False
) -> list[str]:
    """The command line that a sweep, a chain or a reproduction was started with, from its file.

    Raises:
        UserError: an override names code, another place of configurations, or how jobs are run.
    """
    for override in overrides:
        if not isinstance(override, str) or (OVERRIDES.search(override) and not trust_code):
            raise UserError(f"{origin} holds {override!r}, which may run code from elsewhere. Give "
                            "trust_code=true if you trust the file")  # fmt: skip
    return list(overrides)


@cache
def own_names() -> frozenset[str]:
    """Every class, function and constant that the files in `conf/` name."""
    named = re.compile(rf"\b(?:{'|'.join(NAMES)}):\s*([A-Za-z_][\w.]*\.\w+)")
    return frozenset(
        name for file in conf_dir().rglob("*.yaml") for name in named.findall(file.read_text())
    )
