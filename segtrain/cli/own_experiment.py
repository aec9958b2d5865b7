"""`experiment=<file>.yaml`: an experiment of the user's own, wherever its file lies."""

import hashlib
import os
import re
from pathlib import Path

from segtrain.cli.paths import literal
from segtrain.configuration.folder import options
from segtrain.dataset.cache import cache_root
from segtrain.errors import UserError
from segtrain.writing import write_bytes

KEY = "experiment="
SUFFIXES = (".yaml", ".yml")


def with_own_experiments(overrides: list[str]) -> list[str]:
    """The overrides, with experiment files put where Hydra finds them, in the cache.

    There they stay as they are, for jobs of a sweep that begin later or on another machine.

    Raises:
        UserError: a file does not exist, or has the name of an experiment that is there already.
    """
    given = [override for override in overrides if override.startswith(KEY)]
    value = given[-1].removeprefix(KEY) if given else ""
    names = [value] if Path(value).is_file() else value.split(",")
    names = [name.strip("'\"") for name in names]
    files = [Path(name) for name in names if name.endswith(SUFFIXES)]
    if not files:
        return overrides
    for file in files:
        if not file.is_file():
            raise UserError(f"experiment={file}: there is no such file")
        if plain(file) in options("experiment"):
            raise UserError(f"experiment={file}: '{plain(file)}' is an experiment already; rename "
                            "the file")  # fmt: skip
    contents = [file.read_bytes() for file in files]
    root = cache_root() / "experiments" / hashlib.sha256(b"\0".join(contents)).hexdigest()[:16]
    for file, content in zip(files, contents, strict=True):
        write_bytes(root / "experiment" / f"{plain(file)}.yaml", content, str(os.getpid()))
    chosen = ",".join(plain(Path(n)) if n.endswith(SUFFIXES) else n for n in names)
    others = [override for override in overrides if override not in given]
    place = literal(f"file://{root.absolute()}")
    return [f"{KEY}{chosen}", f"hydra.searchpath=[{place}]", *others]


def plain(file: Path) -> str:
    """The file's name as one of an experiment: without its ending and what Hydra gives meaning."""
    return re.sub(r"[^\w-]+", "_", file.stem).strip("_") or "own"
