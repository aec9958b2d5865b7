"""Where files of the zoos are kept on this machine."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def checkpoints() -> Path:
    """Where PyTorch keeps downloaded weights: what is there already is not fetched again."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or f"{cache}/torch"
    return Path(home).expanduser() / "hub" / "checkpoints"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Only one process at a time writes `path`; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f"{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
