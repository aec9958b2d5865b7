"""The content of an image file -> upright 8-bit RGB, by one rule for whoever reads it.

- Colours behind transparency are put on white.
- Of more than 8 bits a channel, or of floating-point numbers, 0 becomes 0 and the white level 255.
  A folder of one's own has one white level for all its images (see `dataset.white`); elsewhere it
  is that of the file's own range, see `white_level`.
- Grey, palette and CMYK become RGB; EXIF's orientation is applied.
"""

import math
import struct
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from segtrain.dataset.orientation import (
    PNG_START,
    TAG,
    TIFF_STARTS,
    open_image,
    png_chunks,
    read_orientation,
    turn_upright,
    valid_orientation,
)
from segtrain.errors import UserError

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
PNG_END = b"IEND\xaeB`\x82"
TIFF_BITS = 258  # the tag with the bits of each channel
DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # Pillow's, of more than 8 bits
WHITE = 255
LARGEST = 2**30  # pixels, 3 GiB of RGB; OpenCV decodes no more, and a bomb would claim more


class Header(NamedTuple):
    """What the head of an image file says."""

    width: int
    height: int
    orientation: int  # EXIF's, 1 to 8
    alpha: bool  # whether there is transparency
    deep: bool  # whether a channel has more than 8 bits


def decode_image(data: bytes, path: str | Path, white: float | None = None) -> np.ndarray:
    """Upright RGB (H, W, 3) uint8 of a file's content, whole or not at all.

    Args:
        data: the content.
        path: what messages call the file.
        white: the white level of files of more than 8 bits; None: by the file's own range.

    Raises:
        UserError: it is truncated, too large or no image, or holds numbers that are no brightness.
    """
    if data.startswith(JPEG_START) and not data.endswith(JPEG_END):
        _check_whole(path, data)  # OpenCV fills what is missing with grey and says nothing
    check_png_end(path, data)
    header = read_header(data)
    check_pixels(path, header)
    if header is not None and header.deep:
        pixels = to_rgb(_decode_deep(data, path), white, path)
    elif header is not None and header.alpha:
        pixels = _decode_with_pillow(data, path)
    else:
        # OpenCV would turn files of some kinds, which ones depends on its version.
        pixels = _decode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        if pixels is None and header is not None:
            pixels = _decode_with_pillow(data, path)  # what only Pillow knows
    if pixels is None:
        raise UserError(f"{path}: not a readable image ({len(data)} bytes)")
    # Decoders of TIFF files turn them.
    turned = data.startswith(TIFF_STARTS) or header is None
    return pixels if turned else turn_upright(pixels, header.orientation)


def read_header(data: bytes) -> Header | None:
    """Of a file's content, or of a PNG's first 4 KB; None where it is no image known to Pillow."""
    if data.startswith(PNG_START) and len(data) > 25:
        chunks = png_chunks(data)
        # Pillow would decode all pixels to look for a tag behind them.
        orientation = read_orientation(data) if b"eXIf" in chunks else 1
        alpha = data[25] in (4, 6) or b"tRNS" in chunks
        return Header(*struct.unpack_from(">II", data, 16), orientation, alpha, data[24] > 8)
    try:
        with open_image(BytesIO(data)) as image:
            plain = image.format == "JPEG"  # for speed: it has neither
            alpha, deep = not plain and has_alpha(image), not plain and is_deep(image)
            return Header(*image.size, _orientation(image), alpha, deep)
    except Exception:  # Pillow raises many kinds for damaged files
        # It does not know floating-point colours; OpenCV does.
        return Header(0, 0, 1, False, True) if data.startswith(TIFF_STARTS) else None


def check_pixels(path: str | Path, header: Header | None) -> None:
    """Refuses files of more pixels than are read: UserError, with their size."""
    if header is not None and header.width * header.height > LARGEST:
        size = f"{header.width}x{header.height}"
        raise UserError(f"{path}: {size} pixels; at most {LARGEST} are read")


def check_png_end(path: str | Path, data: bytes) -> None:
    """Refuses a PNG whose end is missing."""
    if data.startswith(PNG_START) and PNG_END not in data[-4096:]:
        raise UserError(f"{path}: truncated PNG, its end is missing ({len(data)} bytes)")


def read_range(data: bytes, path: str | Path) -> tuple[float, bool]:
    """The largest colour of a file of more than 8 bits a channel, and whether it is a whole number.

    Raises:
        UserError: as `decode_image`.
    """
    check_png_end(path, data)
    check_pixels(path, read_header(data))
    colours = _decode_deep(data, path)[..., :3]
    _check_range(colours, path)
    return float(colours.max(initial=0)), bool(np.issubdtype(colours.dtype, np.integer))


def white_level(highest: float, whole: bool) -> float:
    """What is white where `highest` is the largest value there is.

    The largest number of as many bits: 4095 for anything in 2048..4095, so that it does not depend
    on how bright the brightest pixel happens to be. It is 1 for floating-point numbers up to 1.
    """
    if not whole and highest <= 1:
        return 1.0
    return float(2 ** max(8, math.ceil(highest).bit_length()) - 1)


def to_rgb(array: np.ndarray, white: float | None, path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 of (H, W, 1, 3 or 4) RGB(A) of any number type; see `decode_image`."""
    colours, alpha = array[..., :3], array[..., 3:]
    if colours.dtype != np.uint8:
        _check_range(colours, path)
        colours = _to_eight_bits(colours, white)
    if alpha.size:
        full = np.iinfo(alpha.dtype).max if np.issubdtype(alpha.dtype, np.integer) else 1.0
        share = alpha.astype(np.float32) / full
        colours = (colours * share + WHITE * (1 - share)).round().astype(np.uint8)
    return np.array(np.broadcast_to(colours, (*colours.shape[:2], 3)))


def pillow_rgb(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 of an image of at most 8 bits a channel and any mode, as it is stored."""
    if has_alpha(image):
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, (WHITE, WHITE, WHITE, WHITE))
        image = Image.alpha_composite(background, image)
    return np.array(image.convert("RGB"))


def has_alpha(image: Image.Image) -> bool:
    """Whether there is transparency, known from an opened image's head."""
    return "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info


def is_deep(image: Image.Image) -> bool:
    """Whether a channel has more than 8 bits, known from an opened image's head."""
    bits = getattr(image, "tag_v2", {}).get(TIFF_BITS, 8)
    return image.mode in DEEP_MODES or int(np.max(bits)) > 8


def _orientation(image: Image.Image) -> int:
    try:
        return valid_orientation(image.getexif().get(TAG))
    except Exception:  # of damaged tags; pixels are judged elsewhere
        return 1


def _check_range(colours: np.ndarray, path: str | Path) -> None:
    if colours.size and not (colours.min() >= 0 and np.isfinite(colours.max())):
        raise UserError(f"{path}: pixels in {colours.min():g}..{colours.max():g}: expected numbers "
                        "from 0 on, 0 for black; write the missing ones as 0")  # fmt: skip


def _to_eight_bits(colours: np.ndarray, white: float | None) -> np.ndarray:
    whole = np.issubdtype(colours.dtype, np.integer)
    if white is None:
        white = white_level(float(colours.max(initial=0)), whole)
    if not whole:
        scaled = colours.astype(np.float32) * (WHITE / white)
        return scaled.round().clip(0, WHITE).astype(np.uint8)
    # The upper 8 bits, where the white level has all its bits set.
    last = 65535 if colours.dtype == np.uint16 else int(colours.max(initial=0))
    if last > 65535:
        return (colours.astype(np.float64) * 256 // (white + 1)).clip(0, WHITE).astype(np.uint8)
    table = (np.arange(last + 1) * 256 // (white + 1)).clip(0, WHITE).astype(np.uint8)
    return table[colours]


def _decode(data: bytes, mode: int) -> np.ndarray | None:
    if not data:
        return None
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    except cv2.error:  # of sizes beyond OpenCV's limits
        return None


def _decode_deep(data: bytes, path: str | Path) -> np.ndarray:
    """(H, W, C) of a file of more than 8 bits a channel, in RGB(A) order, as it is stored."""
    array = _decode(data, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if array is None:
        _check_whole(path, data)
        raise UserError(f"{path}: not a readable image ({len(data)} bytes)")
    array = array[..., None] if array.ndim == 2 else array
    if array.shape[2] not in (1, 3, 4):
        raise UserError(f"{path}: {array.shape[2]} channels; expected 1 (grey), 3 (RGB) or 4 (with "
                        "transparency)")  # fmt: skip
    return array if array.shape[2] == 1 else array[..., [2, 1, 0, 3][: array.shape[2]]]


def _decode_with_pillow(data: bytes, path: str | Path) -> np.ndarray:
    try:
        with open_image(BytesIO(data)) as image:
            return pillow_rgb(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: truncated or damaged image ({error})") from None


def _check_whole(path: str | Path, data: bytes) -> None:
    """Refuses what Pillow knows and cannot decode to its end."""
    try:
        with open_image(BytesIO(data)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: truncated or damaged image ({error})") from None
