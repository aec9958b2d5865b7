"""Any picture a user may have -> upright 8-bit RGB."""

from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from segtrain.dataset.files import decode_image, read_image
from segtrain.dataset.orientation import TAG, open_image, read_orientation, valid_orientation
from segtrain.errors import UserError

WHITE = (255, 255, 255)
LARGEST = 2**30  # pixels, 3 GiB of RGB; OpenCV decodes no more, and a bomb would claim more


class Picture(NamedTuple):
    """An image as networks get it."""

    pixels: np.ndarray  # (H, W, 3) uint8 RGB, upright
    orientation: int  # EXIF's, by which it was turned; 1: it was not


AnyImage: TypeAlias = str | Path | Image.Image | np.ndarray | torch.Tensor | Picture


def read_picture(image: AnyImage) -> Picture:
    """Upright 8-bit RGB of whatever is given.

    Colours behind transparency are put on white, of 16 bits a channel the upper 8 are kept, and
    EXIF's orientation is applied.

    Args:
        image: a file; a PIL image of any mode; an array (H, W), (H, W, 3) or (H, W, 4); or a tensor
            (1, H, W), (3, H, W) or (4, H, W), in RGB order. Arrays and tensors are uint8 or uint16,
            or floating point in 0..1.

    Raises:
        UserError: a file is missing, damaged or no image; a type, shape or value is none of those.
    """
    if isinstance(image, Picture):
        return image
    if isinstance(image, str | Path):
        picture = _read_file(Path(image))
    elif isinstance(image, Image.Image):
        picture = _from_pillow(image)
    elif isinstance(image, torch.Tensor):
        if image.ndim != 3:
            raise UserError(f"a tensor of shape {tuple(image.shape)}: expected (3, H, W)")
        picture = Picture(_from_array(image.detach().cpu().permute(1, 2, 0).numpy()), 1)
    elif isinstance(image, np.ndarray):
        picture = Picture(_from_array(image), 1)
    else:
        raise UserError(f"{type(image).__name__}: expected a path, a PIL image, a NumPy array or a "
                        "PyTorch tensor")  # fmt: skip
    if not picture.pixels.size:
        raise UserError(f"an image without pixels, {picture.pixels.shape[:2]}")
    return picture


def picture_pixels(path: Path) -> int:
    """How many pixels a file's header says that it has; 0 where Pillow cannot read it."""
    try:
        with open_image(path) as header:
            return header.width * header.height
    except (OSError, SyntaxError, ValueError):
        return 0


def _read_file(path: Path) -> Picture:
    """OpenCV decodes, as for training; Pillow what has transparency, or what only it knows."""
    try:
        with open_image(path) as header:
            if header.width * header.height > LARGEST:
                raise UserError(f"{path}: {header.width}x{header.height} pixels; at most {LARGEST} "
                                "are read")  # fmt: skip
            if _has_alpha(header):
                return _from_pillow(header)
            data = path.read_bytes()
            try:
                return Picture(decode_image(data, path), read_orientation(data))
            except UserError:
                return _from_pillow(header)
    except UnidentifiedImageError:
        return Picture(read_image(path), 1)
    except (OSError, SyntaxError, ValueError) as error:
        reason = getattr(error, "strerror", None) or f"truncated or damaged image ({error})"
        raise UserError(f"{path}: {reason}") from None


def _has_alpha(image: Image.Image) -> bool:
    return "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info


def _from_pillow(image: Image.Image) -> Picture:
    orientation = valid_orientation(image.getexif().get(TAG))
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        return Picture(_from_array(np.asarray(image).astype(np.uint16)), orientation)
    if image.mode == "F":
        return Picture(_from_array(np.asarray(image)), orientation)
    if _has_alpha(image):
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, (*WHITE, 255))
        image = Image.alpha_composite(background, image)
    return Picture(np.array(image.convert("RGB")), orientation)


def _from_array(array: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of (H, W) or (H, W, 1, 3 or 4), uint8, uint16 or floats in 0..1."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise UserError(f"an array of shape {array.shape}: expected (H, W), (H, W, 3) or (H, W, 4)")
    array = _eight_bits(array)
    if array.shape[2] == 4:
        return _from_pillow(Image.fromarray(array)).pixels
    return np.array(np.broadcast_to(array, (*array.shape[:2], 3)))  # the caller may change theirs


def _eight_bits(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return (array >> 8).astype(np.uint8)
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"pixels of type {array.dtype}: expected uint8, uint16, or floats in 0..1")
    if array.size and not (array.min() >= 0 and array.max() <= 1):
        raise UserError(f"floating-point pixels in {array.min():g}..{array.max():g}: expected "
                        "0..1; give values in 0..255 as uint8")  # fmt: skip
    return (array * 255).round().astype(np.uint8)
