"""Files and folders that are there whole or not at all, whatever ends their writing."""

import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from PIL import Image

OS_ERROR = re.compile(r"\(os error (\d+)\)")  # as libraries written in Rust tell of it


@contextmanager
def complete(path: Path, writer: str = "") -> Iterator[Path]:
    """A hidden name to write a file or a folder under, which then takes the place of `path`.

    So no kill and no full disk leave half a file there. The ending is the same, by which writers
    choose the format. Folders above are made.

    Args:
        path: of the file or folder.
        writer: tells processes apart that write the same path at the same time.

    Raises:
        OSError: it cannot be written; names `path`. What was there before still is.
    """
    partial = path.with_name(f".partial{writer and f'-{writer}'}.{path.name}")
    with naming(path, partial):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            remove(partial)  # of a process that was killed
            yield partial
            os.replace(partial, path)
        finally:
            remove(partial)


@contextmanager
def naming(path: Path, *others: Path) -> Iterator[None]:
    """Lets errors of the operating system name `path` where they name no file, or one of `others`.

    Raises:
        OSError: also for errors of libraries that hand it on as an error of their own.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, *map(str, others)):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    except Exception as error:
        found = OS_ERROR.search(str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from error


def write_bytes(path: Path, content: bytes | memoryview, writer: str = "") -> None:
    """Writes bytes, whole or not at all; see `complete`."""
    with complete(path, writer) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str, writer: str = "") -> None:
    """Writes a text, whole or not at all; see `complete`."""
    write_bytes(path, text.encode(), writer)


def write_json(path: Path, content: Any, writer: str = "") -> None:
    """Writes plain values, whole or not at all; see `complete`."""
    write_text(path, json.dumps(content, indent=2) + "\n", writer)


def write_picture(picture: Image.Image, path: Path, quality: int | None = None) -> None:
    """Writes a picture in the format of the path's ending, whole or not at all; see `complete`.

    Pillow itself takes a block that the disk had room for in part for written.

    Args:
        picture: of any mode.
        path: of the file.
        quality: of a JPEG, whose thin lines keep their colours; None for other formats.
    """
    encoded, format_name = io.BytesIO(), Image.registered_extensions()[path.suffix]
    if quality is None:
        picture.save(encoded, format_name)
    else:
        picture.save(encoded, format_name, quality=quality, subsampling=0)
    write_bytes(path, encoded.getbuffer())


class TorchFile(io.RawIOBase):
    """A file for PyTorch's writers, which end the process where a file raises what ended a write.

    Used as a context manager, it raises the first error at its end.

    Args:
        file: that is written.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Goes nowhere: PyTorch only appends, and goes to the start for whoever reads then."""
        return offset

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                self.file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """What is left is written when the file is closed."""

    def __exit__(self, *reason: object) -> None:
        if self.error is not None:
            raise self.error


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that is in it, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
