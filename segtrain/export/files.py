"""Where an exported network is written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segtrain.errors import UserError
from segtrain.writing import complete


@contextmanager
def in_one_step(output: Path) -> Iterator[Path]:
    """A path beside `output` to write to, which takes its place (see `complete`).

    Raises:
        UserError: a folder with something in it is in the place.
    """
    if output.is_dir() and any(output.iterdir()):
        raise UserError(f"output={output}: this folder is not empty; choose another or remove it")
    with complete(output) as partial:
        yield partial


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)
