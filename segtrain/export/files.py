"""Files and folders that are there whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segtrain.errors import UserError


@contextmanager
def in_one_step(output: Path) -> Iterator[Path]:
    """A path beside `output` to write to; what is there in the end takes its place.

    Nothing does if something was raised meanwhile; what was written is removed then.

    Raises:
        UserError: a folder with something in it is in the place.
    """
    if output.is_dir() and any(output.iterdir()):
        raise UserError(f"output={output}: this folder is not empty; choose another or remove it")
    partial = output.with_name(f"{output.stem}.partial{output.suffix}")
    output.parent.mkdir(parents=True, exist_ok=True)
    remove(partial)  # of an export that was killed
    try:
        yield partial
        os.replace(partial, output)
    finally:
        remove(partial)


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that is in it, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)
