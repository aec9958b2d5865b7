"""Downloads that resume where they broke, checked by their hash."""

import hashlib
import http.client
import logging
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.response import addinfourl

from segtrain.errors import UserError
from segtrain.terminal import Bar
from segtrain.writing import naming

logger = logging.getLogger("segtrain")
BLOCK = 1 << 20  # bytes read at once
TIMEOUT = 30.0  # seconds a server may stay silent
WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds before each further attempt; one that got bytes resets them
Response = http.client.HTTPResponse | addinfourl


class AbsentError(UserError):
    """The server has no such file."""


class _AttemptError(Exception):
    """One attempt at a download failed; `again` says whether another may succeed."""

    def __init__(self, reason: object, again: bool, is_absent: bool = False) -> None:
        super().__init__(str(reason))
        self.again = again
        self.is_absent = is_absent


def download(url: str, path: Path, digest: str | None, by_hand: str | None = None) -> None:
    """Downloads to `path` through `path` + ".part", which a later call resumes.

    Args:
        url: of the file.
        path: where it is wanted.
        digest: see `check_digest`.
        by_hand: what to do with a file that was downloaded elsewhere; None to put it at `path`.

    Raises:
        AbsentError: the server has no such file.
        UserError: not reachable, no space, or a wrong hash.
        OSError: it cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        logger.info("downloading %s to %s", url, path)
        with Bar(path.name, None, "MB") as bar, naming(part):
            _receive_all(url, part, digest, bar)
        _check_or_remove(part, digest)
        os.replace(part, path)
    except _AttemptError as error:
        kind = AbsentError if error.is_absent else UserError
        raise kind(
            f"{url}: cannot be downloaded: {error}. Check the network and run again, or download "
            f"it elsewhere and {by_hand or f'put it at {path}'}"
        ) from None
    logger.info("downloaded %s (%d bytes)", path, path.stat().st_size)


def check_digest(path: Path, digest: str | None) -> None:
    """Compares a file with a hash such as "md5:<hex>", or its start; None lets every file pass.

    Raises:
        UserError: another hash.
        OSError: unreadable.
    """
    if digest is None:
        return
    kind, _, expected = digest.partition(":")
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    if not found.startswith(expected.lower()):
        raise UserError(f"{path}: wrong {kind} hash: expected {expected}, found {found}")


def _check_or_remove(path: Path, digest: str | None) -> None:
    """`check_digest` for a file that the next run would use again."""
    try:
        check_digest(path, digest)
    except UserError as error:
        path.unlink()
        raise UserError(f"{error}. The file was removed; run again to download it anew") from None


def _receive_all(url: str, part: Path, digest: str | None, bar: Bar) -> None:
    """Repeats attempts, each from where the last one broke, as long as they lead further."""
    failures, longest = 0, _size(part)
    while True:
        try:
            return _receive(url, part, digest, bar)
        except _AttemptError as error:
            failures = 1 if _size(part) > longest else failures + 1
            longest = max(longest, _size(part))
            if not error.again or failures > len(WAITS):
                raise
            logger.warning("%s: %s; next attempt in %g s", url, error, WAITS[failures - 1])
        time.sleep(WAITS[failures - 1])


def _receive(url: str, part: Path, digest: str | None, bar: Bar) -> None:
    """One attempt: adds what `part` lacks, or all of it where the server knows no ranges."""
    have = _size(part)
    with _request(url, have) as response:
        start = response.headers["Content-Range"] or ""
        # Nothing is missing; where the server names no length, the hash check that follows decides.
        if response.status == 416 and (start == f"bytes */{have}" or (digest and not start)):
            return
        if response.status in (206, 416) and not start.startswith(f"bytes {have}-"):
            part.unlink()
            raise _AttemptError(f"{part} is no beginning of this file and was removed", True)
        length = int(response.headers["Content-Length"] or 0)
        with open(part, "ab" if response.status == 206 else "wb") as file:
            _check_space(part.parent, length)
            total = file.tell() + length if length else None
            bar.total = total and total / 1e6
            for block in _blocks(response):
                file.write(block)
                bar.update(file.tell() / 1e6)
    # http.client ends a broken body as it ends a whole one.
    if _size(part) < (total or 0):
        raise _AttemptError(f"the connection broke after {_size(part)} of {total} bytes", True)


def _request(url: str, have: int) -> Response:
    """The response to a request for all bytes but the first `have`; status 416 included."""
    headers = {"User-Agent": "segtrain"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(url, headers=headers)
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            return error
        error.close()
        again = error.code in (408, 429) or error.code >= 500
        raise _AttemptError(error, again, is_absent=error.code == 404) from None
    except (OSError, http.client.HTTPException) as error:
        raise _AttemptError(getattr(error, "reason", error), not url.startswith("file:")) from None


def _blocks(response: Response) -> Iterator[bytes]:
    try:
        while block := response.read(BLOCK):
            yield block
    except (OSError, http.client.HTTPException) as error:
        raise _AttemptError(f"the connection broke ({error})", True) from None


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: {free / 1e9:.1f} GB are free, {needed / 1e9:.1f} GB are still to be "
            "downloaded; make room or choose another folder"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
