"""Where shards lie: a folder, or a remote store with a folder that keeps those lately read."""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from segtrain.dataset.remote import fetch_bytes, fetch_file
from segtrain.errors import UserError

POLL = 0.05  # seconds between looks for room in the cache


class Shard(NamedTuple):
    """One file of samples."""

    file: str  # relative to the location
    bytes: int
    sha256: str
    samples: int


class FolderStore:
    """Shards in a folder.

    Args:
        folder: what `segtrain prepare shards=...` wrote.
    """

    remote = False

    def __init__(self, folder: str) -> None:
        self.location = folder

    def where(self, file: str) -> str:
        """What messages call a file."""
        return str(Path(self.location) / file)

    def whole(self, file: str) -> bytes:
        """A small file's content; UserError where it cannot be read."""
        try:
            return Path(self.where(file)).read_bytes()
        except OSError as error:
            raise UserError(f"{self.where(file)}: {error.strerror}") from None

    def check(self, shards: list[Shard]) -> None:
        """Refuses shards that are lost or not whole, without reading them.

        Raises:
            UserError: names the first such shard.
        """
        for shard in shards:
            path = Path(self.where(shard.file))
            if not path.is_file():
                raise UserError(f"{path}: this shard is lost; copy it anew, or write the shards "
                                "again with segtrain prepare shards=...")  # fmt: skip
            if path.stat().st_size != shard.bytes:
                raise UserError(f"{path}: this shard is damaged: it has {path.stat().st_size} "
                                f"bytes, {shard.bytes} are expected; copy it anew")  # fmt: skip

    def path(self, shard: Shard) -> Path:
        """A shard's file."""
        return Path(self.where(shard.file))

    def read(self, shard: Shard, start: int, length: int) -> bytes:
        """A part of a shard; fewer bytes where the file ends too early.

        Raises:
            UserError: the shard is lost.
        """
        try:
            return _part(self.path(shard), start, length)
        except OSError as error:
            raise UserError(f"{self.where(shard.file)}: this shard is lost "
                            f"({error.strerror})") from None  # fmt: skip

    def expect(self, shards: list[Shard]) -> None:
        """Nothing has to be fetched."""


class RemoteStore:
    """Shards behind an address; those lately read are kept in a folder.

    All processes of a machine share the folder. A shard appears in it whole and checked, or not at
    all; the ones not read for longest make room for others.

    Args:
        location: `s3://bucket/prefix` or `http(s)://host/path`.
        cache: the folder.
        max_bytes: what shards may take there, downloads included; None: any number.
    """

    remote = True

    def __init__(self, location: str, cache: Path, max_bytes: int | None) -> None:
        self.location = location.rstrip("/")
        self.cache = cache
        self.max_bytes = max_bytes
        self._ahead: tuple[int, SimpleQueue] | None = None

    def where(self, file: str) -> str:
        return f"{self.location}/{file}"

    def whole(self, file: str) -> bytes:
        """A small file's content; UserError where it cannot be read."""
        return fetch_bytes(self.where(file))

    def check(self, shards: list[Shard]) -> None:
        """Nothing is known of a shard before it is fetched.

        Raises:
            UserError: the cache cannot be written to.
        """
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.cache}: {error.strerror}; choose another folder with "
                            "dataset.shard_cache=...") from None  # fmt: skip

    def path(self, shard: Shard) -> Path:
        """A shard's file in the cache, fetched if it is not there.

        Raises:
            UserError: the store does not give it, or it is corrupt; names it.
        """
        path = self._cached(shard)
        if not path.exists():
            self._fetch(shard)
        return path

    def read(self, shard: Shard, start: int, length: int) -> bytes:
        """A part of a shard.

        Raises:
            UserError: as `path`.
        """
        while True:
            try:
                path = self.path(shard)
                os.utime(path)  # it is the last to make room
                return _part(path, start, length)
            except FileNotFoundError:  # another process made room meanwhile
                continue

    def expect(self, shards: list[Shard]) -> None:
        """Fetches shards in the background, in this order; a failure shows when they are read."""
        if self._ahead is None or self._ahead[0] != os.getpid():  # threads do not survive a fork
            self._ahead = os.getpid(), SimpleQueue()
            threading.Thread(target=self._fetch_ahead, args=self._ahead[1:], daemon=True).start()
        self._ahead[1].put(shards)

    def _fetch_ahead(self, queue: SimpleQueue) -> None:
        while True:
            for shard in queue.get():
                try:
                    if not self._cached(shard).exists():
                        self._fetch(shard, wait=False)
                except (UserError, OSError):
                    break

    def _cached(self, shard: Shard) -> Path:
        return self.cache / f"{shard.sha256}.tar"

    def _fetch(self, shard: Shard, wait: bool = True) -> None:
        """Fetches a shard, once for all processes; without `wait`, not if another is at it."""
        path = self._cached(shard)
        part = path.with_suffix(".part")
        with _locked(path.with_suffix(".lock"), wait) as locked:
            if not locked or path.exists():
                return
            while not self._reserve(part, shard.bytes):
                time.sleep(POLL)  # until another download is whole, and may make room
            try:
                with open(part, "r+b") as file:
                    fetch_file(self.where(shard.file), file, shard.bytes, shard.sha256)
                part.rename(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise

    def _reserve(self, part: Path, size: int) -> bool:
        """Makes room for a file and takes it; False where downloads under way take it all."""
        with _locked(self.cache / "room.lock", wait=True):
            if self.max_bytes is not None:
                self._remove_stale(part)
                # Downloads first: one that ends now is counted twice rather than not at all.
                taken = sum(_size(path) for path in self.cache.glob("*.part") if path != part)
                found = [(path, path.stat()) for path in self.cache.glob("*.tar")]
                taken += sum(stat.st_size for _, stat in found)
                for path, stat in sorted(found, key=lambda entry: entry[1].st_mtime_ns):
                    if taken + size <= self.max_bytes:
                        break
                    path.unlink()
                    taken -= stat.st_size
                if taken + size > self.max_bytes:
                    return False
            with open(part, "wb") as file:
                file.truncate(size)
            return True

    def _remove_stale(self, own: Path) -> None:
        """Removes what killed processes left of their downloads."""
        for part in self.cache.glob("*.part"):
            if part != own:
                with _locked(part.with_suffix(".lock"), wait=False) as locked:
                    if locked:
                        part.unlink(missing_ok=True)


def _part(path: Path, start: int, length: int) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return os.pread(file.fileno(), length, start)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # it has just become whole
        return 0


@contextmanager
def _locked(path: Path, wait: bool) -> Iterator[bool]:
    """Holds a lock file; without `wait`, says whether it could be had."""
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
