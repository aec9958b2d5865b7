"""Files of the zoos on this machine: where they are kept, fetched, and looked at."""

import hashlib
import logging
import zipfile
from pathlib import Path
from urllib.parse import urlparse

from segtrain.errors import UserError
from segtrain.zoo import hub
from segtrain.zoo.cache import checkpoints, locked
from segtrain.zoo.entry import Entry

logger = logging.getLogger("segtrain")


def file_name(entry: Entry) -> str:
    """Of a row's file at its address."""
    return Path(urlparse(entry.address).path).name


def cached_file(entry: Entry) -> Path:
    """Where a row's file is kept.

    A name that holds its own hash is of no other file, and whoever fetched it may have left it
    there; others are called after their row.
    """
    if hub.is_hub(entry.weights):
        return hub.repository_of(entry.weights).folder / file_name(entry)
    name, known = file_name(entry), entry.sha256 or entry.sha1
    if known and known[:6] in name:
        return checkpoints() / name
    return checkpoints() / f"{entry.zoo}_{entry.name}{Path(name).suffix}"


def is_here(entry: Entry) -> bool:
    """Whether a row's file is kept on this machine."""
    if hub.is_hub(entry.weights):
        return hub.is_fetched(hub.repository_of(entry.weights))
    return cached_file(entry).is_file()


def obtain(entry: Entry, given: str | Path | None, key: str) -> Path:
    """A row's file: one from the disk, or the cached one, which is fetched where it is missing.

    Of several processes one fetches while the others wait.

    Args:
        entry: the row.
        given: a file in its place, which may have been converted: that it is another than the
            zoo's is logged.
        key: the option that takes such a file, for messages.

    Raises:
        UserError: it cannot be fetched, or is not the zoo's.
    """
    if given is not None:
        path = Path(given)
        if not path.is_file():
            raise UserError(f"{key}={path}: no such file")
        if wrong := difference(entry, path):
            logger.warning("weights     %s is not the file of %s, it is used all the same: %s",
                           path, entry.weights, wrong)  # fmt: skip
        return path
    path = cached_file(entry)
    if not path.is_file() and entry.by_hand:
        raise UserError(
            f"{entry.weights} has to be fetched by hand: {entry.address} is a page that "
            f"leads to it. Give {key}=<file>, or put it at {path}"
        )
    if not path.is_file():
        with locked(path):
            if not path.is_file():
                _fetch(entry, path, key)
    if wrong := difference(entry, path):
        raise UserError(f"{path} is not the file of {entry.weights}: {wrong}. Remove it "
                        f"to fetch {entry.address}, or give {key}=<file>")  # fmt: skip
    return path


def difference(entry: Entry, path: Path) -> str | None:
    """In what a file is another than the row's: its hash, or its size where no hash is known."""
    from segtrain.prepare.fetch import check_digest

    if digest := _digest(entry):
        try:
            check_digest(path, digest)
        except UserError as error:
            return str(error).removeprefix(f"{path}: ")
    elif entry.sha1 is not None and zipfile.is_zipfile(path):
        return _difference_inside(path, entry.sha1)
    elif entry.size is not None and path.stat().st_size != entry.size:
        return f"it has {path.stat().st_size:,} bytes, expected {entry.size:,}"
    return None


def _fetch(entry: Entry, path: Path, key: str) -> None:
    from segtrain.prepare.fetch import download

    digest = _digest(entry)
    known = f", {digest.replace(':', ' ')}" if digest else ""
    by_hand = f"give {key}=<file> ({file_name(entry)}{known})"
    download(entry.address, path, digest, by_hand)


def _digest(entry: Entry) -> str | None:
    """The hash of a row's file; None where it is not known, or is that of a file inside."""
    if entry.sha256 is not None:
        return f"sha256:{entry.sha256}"
    is_archive = file_name(entry).endswith(".zip")
    return None if entry.sha1 is None or is_archive else f"sha1:{entry.sha1}"


def _difference_inside(path: Path, sha1: str) -> str | None:
    with zipfile.ZipFile(path) as archive, archive.open(archive.infolist()[0]) as file:
        found = hashlib.file_digest(file, "sha1").hexdigest()
    if found.startswith(sha1):
        return None
    return f"wrong sha1 hash of the file inside: expected {sha1}, found {found}"
