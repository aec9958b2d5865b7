"""Any picture a user may have -> upright 8-bit RGB."""

from pathlib import Path
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps

from segtrain.dataset.decoding import DEEP_MODES, decode_image, pillow_rgb, read_header, to_rgb
from segtrain.dataset.files import read_bytes, require_regular
from segtrain.dataset.orientation import TAG, open_image, valid_orientation
from segtrain.errors import UserError


class Picture(NamedTuple):
    """An image as networks get it."""

    pixels: np.ndarray  # (H, W, 3) uint8 RGB, upright
    orientation: int  # EXIF's, by which it was turned; 1: it was not


AnyImage: TypeAlias = str | Path | Image.Image | np.ndarray | torch.Tensor | Picture


def read_picture(image: AnyImage, white: float | None = None) -> Picture:
    """Upright 8-bit RGB of whatever is given, as `segtrain.dataset.decoding` makes it of a file.

    Args:
        image: a file; a PIL image of any mode; an array (H, W), (H, W, 3) or (H, W, 4); or a tensor
            (1, H, W), (3, H, W) or (4, H, W), in RGB order. Arrays and tensors are uint8 or uint16,
            or floating point in 0..1.
        white: the white level of images of more than 8 bits a channel; None: of each by its own
            range. Arrays and tensors of floating-point numbers have 1.

    Raises:
        UserError: a file is missing, damaged or no image; a type, shape or value is none of those.
    """
    if isinstance(image, Picture):
        return image
    if isinstance(image, str | Path):
        picture = decode_picture(read_bytes(image), image, white)
    elif isinstance(image, Image.Image):
        picture = _from_pillow(image, white)
    elif isinstance(image, torch.Tensor):
        if image.ndim != 3:
            raise UserError(f"a tensor of shape {tuple(image.shape)}: expected (3, H, W)")
        picture = Picture(_from_array(image.detach().cpu().permute(1, 2, 0).numpy(), white), 1)
    elif isinstance(image, np.ndarray):
        picture = Picture(_from_array(image, white), 1)
    else:
        raise UserError(f"{type(image).__name__}: expected a path, a PIL image, a NumPy array or a "
                        "PyTorch tensor")  # fmt: skip
    if not picture.pixels.size:
        raise UserError(f"an image without pixels, {picture.pixels.shape[:2]}")
    return picture


def decode_picture(data: bytes, name: str | Path, white: float | None) -> Picture:
    """Upright 8-bit RGB of the content of a file, which messages call `name`; see `read_picture`.

    Raises:
        UserError: it is damaged or no image.
    """
    header = read_header(data)
    return Picture(decode_image(data, name, white), header.orientation if header else 1)


def picture_pixels(path: Path) -> int:
    """How many pixels a file's header says that it has; 0 where Pillow cannot read it.

    Raises:
        UserError: it is missing or no regular file.
    """
    require_regular(path)
    try:
        with open_image(path) as header:
            return header.width * header.height
    except (OSError, SyntaxError, ValueError):
        return 0


def resized_by(image: np.ndarray, scale: float) -> np.ndarray:
    """(H, W, 3) uint8 -> both sides multiplied by `scale`."""
    return resized_to(image, tuple(max(1, round(side * scale)) for side in image.shape[:2]))


def resized_to(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 -> (*size, 3)."""
    if size == image.shape[:2]:
        return image
    is_smaller = size[0] < image.shape[0] or size[1] < image.shape[1]
    how = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
    return cv2.resize(image, size[::-1], interpolation=how)


def fit_pixels(image: np.ndarray, most: int) -> np.ndarray:
    """The image, reduced where it has more than `most` pixels."""
    scale = (most / (image.shape[0] * image.shape[1])) ** 0.5
    return image if scale >= 1 else resized_by(image, scale)


def _from_pillow(image: Image.Image, white: float | None) -> Picture:
    orientation = valid_orientation(image.getexif().get(TAG))
    image = ImageOps.exif_transpose(image)
    if image.mode in DEEP_MODES:
        return Picture(to_rgb(np.asarray(image)[..., None], white, "an image"), orientation)
    return Picture(pillow_rgb(image), orientation)


def _from_array(array: np.ndarray, white: float | None) -> np.ndarray:
    """(H, W, 3) uint8 of (H, W) or (H, W, 1, 3 or 4), uint8, uint16 or floats in 0..1."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise UserError(f"an array of shape {array.shape}: expected (H, W), (H, W, 3) or (H, W, 4)")
    if np.issubdtype(array.dtype, np.floating):
        white = 1.0
        if array.size and not (array.min() >= 0 and array.max() <= 1):
            raise UserError(f"floating-point pixels in {array.min():g}..{array.max():g}: expected "
                            "0..1; give values in 0..255 as uint8")  # fmt: skip
    elif array.dtype not in (np.uint8, np.uint16):
        raise UserError(f"pixels of type {array.dtype}: expected uint8, uint16, or floats in 0..1")
    return to_rgb(array, white, "an array")
