"""Things computed once from a data set's files and kept until those change."""

import fcntl
import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING

from segtrain.errors import UserError
from segtrain.writing import complete, remove, write_json

if TYPE_CHECKING:
    from segtrain.contracts import Listing

KEY_FILE = "key"
READING = "3"  # how files are decoded; another way makes what was computed from them anew
SUMMED = 1 << 24  # bytes of a file of the cache up to which not its size alone is looked at


def cache_root() -> Path:
    """`$SEGTRAIN_CACHE`, or `segtrain` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SEGTRAIN_CACHE") or Path(home) / "segtrain")


def cached_folder(name: str, key: str, build: Callable[[Path], None]) -> Path:
    """The folder `name` of the cache, built anew unless it was built for the same key.

    A folder whose files are not as they were written is built anew as well. It appears whole or not
    at all. Of several processes one builds while the others wait.

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
            if not is_current(folder, key):
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


def fingerprint(listing: "Listing") -> str:
    """Changes when a file of the split, the way to read it or the meaning of its labels does."""
    return f"{READING} {files_fingerprint(listing.files)} {listing.key}"


def is_current(folder: Path, key: str) -> bool:
    """Whether a folder was built for this key, and is as it was then."""
    try:
        return (folder / KEY_FILE).read_bytes() == _seal(folder, key)
    except OSError:
        return False


def stored_entry(file: str, key: str, kinds: Mapping[str, type | UnionType]) -> dict | None:
    """What `store_entry` kept; None where it did not, or what is there is damaged.

    Args:
        file: name of a JSON file of the cache.
        key: of the entry.
        kinds: what an entry holds, and of which type.
    """
    entry = _entries(file).get(key)
    if isinstance(entry, dict) and all(isinstance(entry.get(k), t) for k, t in kinds.items()):
        return entry
    return None


def store_entry(file: str, key: str, entry: dict) -> None:
    """Keeps an entry in a JSON file of the cache, beside the others."""
    write_json(cache_root() / file, _entries(file) | {key: entry}, str(os.getpid()))


def _entries(file: str) -> dict:
    try:
        content = json.loads((cache_root() / file).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _seal(folder: Path, key: str) -> bytes:
    """The key, and of each file of the folder its name, size and, of all but large ones, CRC-32."""
    lines = [key]
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name != KEY_FILE:
            size = path.stat().st_size
            lines.append(f"{name} {size} {_crc(path) if size <= SUMMED else '-'}")
    return "\n".join(lines).encode()


def _crc(path: Path) -> int:
    return zlib.crc32(path.read_bytes())


def _rebuild(folder: Path, key: str, build: Callable[[Path], None]) -> None:
    with complete(folder) as partial:
        partial.mkdir()
        build(partial)
        (partial / KEY_FILE).write_bytes(_seal(partial, key))
        remove(folder)
