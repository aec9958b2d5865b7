"""EXIF's orientation: images and masks are turned upright when they are read, each by its own tag.

Tools to annotate with show images upright, and write masks without a tag as they were shown. Labels
in JSON or MATLAB files have no tag: they are those of the upright image.
"""

import threading
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

TAG = 0x0112  # of EXIF and of TIFF
PNG_START = b"\x89PNG\r\n\x1a\n"
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # and of BigTIFF

_opening = threading.Lock()


def open_image(file: str | Path | BytesIO) -> Image.Image:
    """Pillow's view of a file, without its limit of pixels.

    The limit keeps servers from decoding gigabytes that a few kilobytes claim to be; a user's own
    picture of 20,000 x 20,000 pixels exceeds it too.
    """
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def read_orientation(data: bytes) -> int:
    """What the tag of an image file's content says: 1 (upright, or no tag that can be read) to 8.

    1: upright, 2: mirrored left to right, 3: turned by 180 degrees, 4: upside down, mirrored,
    5 to 8: the same with height and width exchanged.
    """
    if data.startswith(PNG_START) and b"eXIf" not in png_chunks(data):
        return 1  # Pillow would decode all pixels to look for a tag behind them
    try:
        with open_image(BytesIO(data)) as image:
            return valid_orientation(image.getexif().get(TAG))
    except Exception:  # Pillow raises many kinds for damaged tags; pixels are judged elsewhere
        return 1


def valid_orientation(found: object) -> int:
    """A tag's value as `read_orientation` returns it."""
    return found if found in range(1, 9) else 1


def turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels (H, W) or (H, W, C), upright, by the tag of their file.

    Not for TIFF files: their decoders turn them.
    """
    if orientation == 1:
        return pixels
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def explain_turn(path: str | Path, size: tuple[int, int], expected: tuple[int, int]) -> str:
    """The end of a message about sizes (H, W) that differ: that a file was turned, if it was.

    Args:
        path: the image or mask.
        size: as it was read.
        expected: what it should be.
    """
    orientation = 1 if Path(path).suffix == ".mat" else read_orientation(Path(path).read_bytes())
    if orientation < 5 or tuple(expected) != tuple(size[::-1]):
        return ""
    return (
        f"; {path} is stored as {size[0]}x{size[1]} and was turned upright by its EXIF orientation "
        f"{orientation}. Labels have to be drawn on the upright image; if they fit the pixels as "
        f"they are stored, remove the tag (exiftool -Orientation= {path})"
    )


def png_chunks(data: bytes) -> set[bytes]:
    """The names of the chunks of a PNG's content, before the pixels and behind them."""
    names, position = set(), len(PNG_START)
    while position + 8 <= len(data):
        names.add(data[position + 4 : position + 8])
        position += 12 + int.from_bytes(data[position : position + 4])
    return names
