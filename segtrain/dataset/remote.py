"""Reading whole files of an S3-compatible or HTTP store."""

import hashlib
import http.client
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, BinaryIO

from segtrain.errors import UserError

logger = logging.getLogger("segtrain")

SCHEMES = ("s3://", "http://", "https://")
BLOCK = 1 << 20  # bytes read at once
TIMEOUT = 30.0  # seconds a server may stay silent
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each further attempt


class _AttemptError(Exception):
    """One attempt failed for a reason that may pass."""


def is_remote(location: str) -> bool:
    """Whether a location is an address, not a folder."""
    return location.startswith(SCHEMES)


def fetch_bytes(url: str) -> bytes:
    """A small file's content.

    Raises:
        UserError: there is no such file, it may not be read, or the store cannot be reached.
    """
    return _attempts(url, lambda: b"".join(_blocks(url)))


def fetch_file(url: str, file: BinaryIO, size: int, sha256: str) -> None:
    """Writes a file of the store into `file` and checks what came.

    Raises:
        UserError: as `fetch_bytes`; or it is not the file that is expected; names it.
    """

    def attempt() -> None:
        file.seek(0)
        digest, length = hashlib.sha256(), 0
        for block in _blocks(url):
            digest.update(block)
            length += len(block)
            file.write(block)
        file.truncate()
        if length != size:
            raise _AttemptError(f"{length} bytes came, {size} are expected")
        if digest.hexdigest() != sha256:
            raise _AttemptError(f"its sha256 is {digest.hexdigest()}, expected {sha256}")

    _attempts(url, attempt)


def _attempts(url: str, attempt: Any) -> Any:
    for wait in (*WAITS, None):
        try:
            return attempt()
        except _AttemptError as error:
            if wait is None:
                raise UserError(
                    f"{url}: cannot be read, or is corrupt: {error} ({len(WAITS) + 1} attempts)"
                ) from None
            logger.warning("%s: %s; next attempt in %g s", url, error, wait)
        time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def _blocks(url: str) -> Iterator[bytes]:
    try:
        with _open(url) as body:
            while block := body.read(BLOCK):
                yield block
    except (OSError, http.client.HTTPException) as error:
        raise _AttemptError(f"the connection broke ({error})") from None
    except Exception as error:  # boto's own, whose package need not be there
        if type(error).__module__.startswith(("botocore", "urllib3")):
            raise _AttemptError(f"the connection broke ({error})") from None
        raise


def _open(url: str) -> Any:
    """The body of a file of the store, to be read in blocks."""
    return _open_s3(url) if url.startswith("s3://") else _open_http(url)


def _open_http(url: str) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "segtrain"})
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        _refuse(url, error.code, str(error))


def _open_s3(url: str) -> Any:
    try:
        from botocore.exceptions import ClientError, NoCredentialsError
    except ImportError:
        raise UserError(
            f"{url}: reading from S3 needs boto3; pip install 'segtrain[shards]'"
        ) from None
    bucket, _, key = url.removeprefix("s3://").partition("/")
    try:
        return _s3_client(os.getpid()).get_object(Bucket=bucket, Key=key)["Body"]
    except NoCredentialsError:
        raise UserError(
            f"{url}: no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE (and AWS_ENDPOINT_URL for another store than Amazon's)"
        ) from None
    except ClientError as error:
        _refuse(url, error.response["ResponseMetadata"]["HTTPStatusCode"], str(error))


@lru_cache(maxsize=1)
def _s3_client(process: int) -> Any:  # connections of the parent are no use after a fork
    import boto3
    from botocore.config import Config

    settings = Config(retries={"total_max_attempts": 1}, connect_timeout=10, read_timeout=TIMEOUT)
    return boto3.session.Session().client("s3", config=settings)


def _refuse(url: str, status: int, reason: str) -> None:
    if status in (408, 429) or status >= 500:
        raise _AttemptError(reason)
    if status == 404:
        raise UserError(f"{url}: there is no such file in the store ({reason})")
    raise UserError(f"{url}: the store refuses to give it ({reason})")
