"""Where the checkpoints of a run are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segtrain.errors import UserError


def find_checkpoint(config: Mapping[str, Any]) -> Path:
    """The file named by `checkpoint=` or the best (else last) one of `run=`.

    Raises:
        UserError: none or both of them are given, or there is no such file.
    """
    if (config["run"] is None) == (config["checkpoint"] is None):
        raise UserError("give one of run=<run folder> and checkpoint=<file>")
    if config["checkpoint"] is not None:
        candidates = [Path(config["checkpoint"])]
    else:
        folder = Path(config["run"]) / "checkpoints"
        candidates = [folder / "best.ckpt", folder / "last.ckpt"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UserError(f"no checkpoint: {' and '.join(map(str, candidates))} do not exist")
