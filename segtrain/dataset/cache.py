"""Things computed once from a data set's files and kept until those change."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path

from segtrain.contracts import Listing
from segtrain.errors import UserError
from segtrain.writing import complete

KEY_FILE = "key"
READING = "3"  # how files are decoded; another way makes what was computed from them anew


def cache_root() -> Path:
    """`$SEGTRAIN_CACHE`, or `segtrain` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SEGTRAIN_CACHE") or Path(home) / "segtrain")


def cached_folder(name: str, key: str, build: Callable[[Path], None]) -> Path:
    """The folder `name` of the cache, built anew unless it was built for the same key.

    It appears whole or not at all. Of several processes one builds while the others wait.

    Args:
        name: of the folder; another key replaces its content.
        key: changes whenever the result would.
        build: fills the empty folder it is given.

    Raises:
        UserError: the cache cannot be written to.
    """
    folder = cache_root() / name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(folder.with_name(f"{folder.name}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_current(folder, key):
                _rebuild(folder, key, build)
    except PermissionError as error:
        raise UserError(
            f"{error.filename}: cannot write to the cache; set SEGTRAIN_CACHE to a folder of yours"
        ) from None
    return folder


def files_fingerprint(paths: Iterable[str | Path]) -> str:
    """Hash of names, sizes and modification times; a file that is not there counts as such."""
    digest = sha256()
    for path in paths:
        try:
            stat = os.stat(path)
            digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{path}\0missing\n".encode())
    return digest.hexdigest()


def fingerprint(listing: Listing) -> str:
    """Changes when a file of the split, the way to read it or the meaning of its labels does."""
    return f"{READING} {files_fingerprint(listing.files)} {listing.key}"


def _is_current(folder: Path, key: str) -> bool:
    path = folder / KEY_FILE
    return path.is_file() and path.read_text() == key


def _rebuild(folder: Path, key: str, build: Callable[[Path], None]) -> None:
    with complete(folder) as partial:
        partial.mkdir()
        build(partial)
        (partial / KEY_FILE).write_text(key)
        shutil.rmtree(folder, ignore_errors=True)
