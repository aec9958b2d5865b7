"""Archives of predictions, and what servers ask of the PNG files in them."""

import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from segtrain.errors import UserError
from segtrain.submit.submission import SubmittedImage


def require_files(folder: Path, names: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Names of files below `folder` with their paths.

    Raises:
        UserError: one is missing.
    """
    for name in names:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing: it was written and is gone; test again")
        yield name, folder / name


def pack_tar(archive: Path, folder: Path, names: Iterable[str]) -> None:
    """A .tar.gz of files below `folder`, without their owners and times.

    Raises:
        UserError: one is missing.
    """
    with tarfile.open(archive, "w:gz") as tar:
        for name, path in require_files(folder, names):
            entry = tarfile.TarInfo(name)
            entry.size = path.stat().st_size
            with path.open("rb") as file:
                tar.addfile(entry, file)


def pack_zip(archive: Path, folder: Path, names: Iterable[str]) -> None:
    """A .zip of files below `folder`.

    Raises:
        UserError: one is missing.
    """
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, path in require_files(folder, names):
            file.write(path, name)


def read_tar(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a .tar.gz's entries, one after another."""
    with tarfile.open(archive, "r:gz") as tar:
        for entry in tar:
            content = tar.extractfile(entry)
            yield entry.name, b"" if content is None else content.read()


def read_zip(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a .zip's entries, one after another."""
    with zipfile.ZipFile(archive) as file:
        for entry in file.infolist():
            yield entry.filename, file.read(entry)


def check_label_maps(
    entries: Iterable[tuple[str, bytes]],
    expected: dict[str, SubmittedImage],
    palette: bytes | None,
    values: Iterable[int],
) -> None:
    """Refuses an archive that does not hold one good label map for each image.

    Args:
        entries: names and contents of what it holds.
        expected: the image of each name.
        palette: as in `read_png`.
        values: those that may stand in a map.

    Raises:
        UserError: a file is missing, unexpected, twice or not as wanted; names it.
    """
    left = dict(expected)
    for name, content in entries:
        image = left.pop(name, None)
        if image is None:
            raise UserError(f"{name}: of no image of the split, or twice in the archive")
        pixels = read_png(name, content, image.size, palette)
        require_values(name, pixels, values)
    if left:
        name, image = next(iter(left.items()))
        raise UserError(f"{name} of {image.name} is not in the archive ({len(left)} are missing)")


def read_png(
    name: str, content: bytes, size: tuple[int, int], palette: bytes | None, grey: bool = True
) -> np.ndarray:
    """Pixels of a PNG of 8 bits a channel: (H, W) uint8, or (H, W, 3) of RGB.

    Args:
        name: what messages call it.
        content: the file.
        size: H and W that it must have.
        palette: 768 bytes of RGB that it must have; None for one without.
        grey: whether one without is grey; else it is RGB.

    Raises:
        UserError: it is damaged, or another kind of file.
    """
    try:
        with Image.open(BytesIO(content), formats=["PNG"]) as image:
            mode, found, colours = image.mode, image.size[::-1], image.getpalette()
            pixels = np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise UserError(f"{name}: not a readable PNG ({error})") from None
    wanted = "P" if palette is not None else "L" if grey else "RGB"
    if mode != wanted:
        raise UserError(f"{name}: mode {mode}, the server wants {wanted} (8 bits)")
    if palette is not None and bytes(colours) != palette:
        raise UserError(f"{name}: its palette is not the server's")
    if found != size:
        raise UserError(f"{name}: {found[1]}x{found[0]}, its image is {size[1]}x{size[0]}")
    return pixels


def require_values(name: str, pixels: np.ndarray, values: Iterable[int]) -> None:
    """Refuses other pixels; pixels are (H, W) uint8.

    Raises:
        UserError: names a value that may not stand in the file `name`.
    """
    counts = cv2.calcHist([pixels], [0], None, [256], [0, 256]).ravel()
    counts[list(values)] = 0
    if counts.any():
        raise UserError(f"{name}: value {np.flatnonzero(counts)[0]} stands for no class")
