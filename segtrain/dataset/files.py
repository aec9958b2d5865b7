"""Reading images, masks and lists, whole or not at all."""

import os
import stat
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from segtrain.dataset.decoding import (
    JPEG_START,
    TIFF_BITS,
    check_pixels,
    check_png_end,
    decode_image,
    read_header,
)
from segtrain.dataset.orientation import (
    PNG_START,
    TIFF_STARTS,
    explain_turn,
    open_image,
    read_orientation,
    turn_upright,
)
from segtrain.errors import UserError

MAT_VARIABLES = ("LabelMap", "S", "GTcls")  # PASCAL-Context, COCO-Stuff 10k, SBD
VALUE_MODES = ("L", "P", "1", "I;16", "I;16L", "I;16B", "I", "F")  # Pillow's, of one channel
COLOUR_MODES = ("L", "P", "1", "LA", "PA", "RGB", "RGBA")
KINDS = (
    (stat.S_ISDIR, "Is a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read_image(path: str | Path, white: float | None = None) -> np.ndarray:
    """Upright RGB (H, W, 3) uint8 of any image file; `decode_image` says how.

    Raises:
        UserError: the file is missing, no regular file, truncated or not an image.
    """
    return decode_image(read_bytes(path), path, white)


def read_mask(path: str | Path, colours: bool = False) -> np.ndarray:
    """Raw label values (H, W) of an image file, palette indices included, or of a MATLAB file.

    An image file is turned upright by its own EXIF orientation.

    Args:
        path: the file.
        colours: whether its colours are meant: values are 0xRRGGBB then, transparency or none.

    Raises:
        UserError: the file is missing, no regular file, truncated, too large, compressed in a way
            that changes values, or has other channels than are meant.
    """
    if Path(path).suffix == ".mat":
        return read_mat(path)
    data = read_bytes(path)
    check_png_end(path, data)
    if data.startswith(JPEG_START):
        raise UserError(f"{path}: {NO_JPEG}")
    header = read_header(data)
    check_pixels(path, header)
    try:  # with Pillow, since OpenCV would expand a palette to colours
        with open_image(BytesIO(data)) as image:
            raw = _colour_values(image, path) if colours else _label_values(image, data, path)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: not a readable mask ({error})") from None
    return raw if data.startswith(TIFF_STARTS) else turn_upright(raw, header.orientation)


NO_JPEG = (
    "a JPEG as a mask, whose compression changes label values; write masks as PNG anew. If there "
    "is nothing but JPEGs, of 0 and 255: magick mogrify -format png -threshold 50% masks/*.jpg"
)


def _label_values(image: Image.Image, data: bytes, path: str | Path) -> np.ndarray:
    """The numbers that an opened mask holds."""
    if image.mode not in VALUE_MODES:
        raise UserError(
            f"{path}: a mask needs one channel of label values, found mode {image.mode}; write "
            "class numbers, or in classes.txt the colours, '<r>,<g>,<b> <name>' a line"
        )
    raw = np.asarray(image)
    if image.mode == "1":
        return raw.astype(np.uint8)
    if image.mode == "F":
        whole = raw.astype(np.int64) if np.isfinite(raw).all() else np.zeros_like(raw, np.int64)
        if (whole != raw).any() or np.isnan(raw).any():
            raise UserError(f"{path}: a mask of floating-point numbers that are not whole; write "
                            "class numbers")  # fmt: skip
        return whole
    # Pillow spreads grey of 2 and 4 bits over 0..255.
    bits = data[24] if data.startswith(PNG_START) else getattr(image, "tag_v2", {}).get(TIFF_BITS)
    return raw // {2: 85, 4: 17}.get(np.ravel(bits or 8)[0], 1) if image.mode == "L" else raw


def _colour_values(image: Image.Image, path: str | Path) -> np.ndarray:
    """The colours of an opened mask, as (H, W) int32 numbers 0xRRGGBB."""
    if image.mode not in COLOUR_MODES:
        raise UserError(f"{path}: a mask of mode {image.mode}, where classes.txt (or labelmap.txt) "
                        "gives colours; expected 8-bit colours or a palette")  # fmt: skip
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")).astype(np.int32), 2, 0)
    return red << 16 | green << 8 | blue


def check_sizes(
    mask: str, mask_size: tuple[int, int], image: str, image_size: tuple[int, int]
) -> None:
    """Compares the sizes (H, W) of a mask and its image as they were read.

    Raises:
        UserError: they differ; names both files, their sizes, and the tag by which one was turned.
    """
    if mask_size != image_size:
        raise UserError(
            f"{mask}: the mask is {mask_size[1]}x{mask_size[0]} but its image {image} is "
            f"{image_size[1]}x{image_size[0]} (width x height)"
            + explain_turn(image, image_size, mask_size)
            + explain_turn(mask, mask_size, image_size)
        )


def read_mat(path: str | Path) -> np.ndarray:
    """Raw label values (H, W) of a MATLAB file of PASCAL-Context, COCO-Stuff 10k or SBD.

    Raises:
        UserError: the file is missing, damaged, or holds none of their variables.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(BytesIO(read_bytes(path)), variable_names=MAT_VARIABLES)
    except UserError:
        raise
    except Exception as error:  # scipy raises many kinds for damaged files
        raise UserError(f"{path}: not a readable MATLAB file ({error})") from None
    for name in MAT_VARIABLES:
        if name in content:
            raw = content[name]["Segmentation"][0, 0] if name == "GTcls" else content[name]
            return raw if raw.dtype == np.uint8 else raw.astype(np.uint16)  # MATLAB likes doubles
    raise UserError(f"{path}: none of the variables {', '.join(MAT_VARIABLES)} is in the file")


def read_bytes(path: str | Path) -> bytes:
    """The content of a regular file.

    Raises:
        UserError: as `require_regular`, or it cannot be read.
    """
    require_regular(path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


def require_regular(path: str | Path) -> None:
    """Refuses what is no regular file unopened: on a pipe one would wait for ever.

    Raises:
        UserError: it is missing, or a folder, pipe, socket or device; says which.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in KINDS if is_kind(mode)), "something else")
        raise UserError(f"{path}: no regular file ({kind}); take it away or put the file there")


def find_base(root: str | Path, inside: tuple[str, ...], hint: str) -> Path:
    """The first of `root/<inside>` that is there, else the root itself.

    Raises:
        UserError: there is no root; `hint` says what should lie there.
    """
    for name in inside:
        if (Path(root) / name).is_dir():
            return Path(root) / name
    return require_folder(Path(root), f"{hint}; set SEGTRAIN_DATA or dataset.source.root")


def require_folder(path: Path, hint: str) -> Path:
    """The folder itself, or a UserError that says what should lie there and how to name it."""
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; {hint}")
    return path


def read_list(path: Path) -> list[str]:
    """Lines of a split list without blanks.

    Raises:
        UserError: the list is missing (names the lists that are there) or has no line.
    """
    if not path.exists():
        found = sorted(other.stem for other in path.parent.glob("*.txt"))
        raise UserError(f"{path}: no such split list; found: {', '.join(found) or 'none'}")
    lines = read_lines(path)
    if not lines:
        raise UserError(f"{path}: the split is empty; expected one name a line")
    return lines


def read_lines(path: Path) -> list[str]:
    """Lines of a text file without blanks; see `read_text`."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_text(path: Path) -> str:
    """A text file in UTF-8, with a byte order mark or without.

    Raises:
        UserError: it is missing, no regular file, or in another encoding.
    """
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path}: not in UTF-8 (line {line}, byte 0x{data[error.start]:02x}); save "
                        "it in UTF-8") from None  # fmt: skip
    if "\0" in text:
        raise UserError(f"{path}: not a text in UTF-8, it has zero bytes; save it in UTF-8")
    return text


def upright_size(file: str | Path | bytes) -> tuple[int, int]:
    """Height and width of an image, upright as it is read, without decoding its pixels.

    Args:
        file: the image, or its content.

    Raises:
        UserError: the file is missing or no image.
    """
    try:
        data = file if isinstance(file, bytes) else read_bytes(file)
        with open_image(BytesIO(data)) as image:
            width, height = image.size
    except (OSError, SyntaxError) as error:
        name = "the image" if isinstance(file, bytes) else file
        raise UserError(f"{name}: its size cannot be read ({error})") from None
    return (width, height) if read_orientation(data) > 4 else (height, width)
