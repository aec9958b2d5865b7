"""Reading images, masks and split lists, whole or not at all."""

from io import BytesIO
from pathlib import Path

import cv2
import numpy as np

from segtrain.dataset.orientation import PNG_START, explain_turn, open_image, turn_upright
from segtrain.errors import UserError

JPEG_END = b"\xff\xd9"
PNG_END = b"IEND\xaeB`\x82"
MAT_VARIABLES = ("LabelMap", "S", "GTcls")  # PASCAL-Context, COCO-Stuff 10k, SBD


def read_image(path: str | Path) -> np.ndarray:
    """Upright RGB (H, W, 3) uint8 of any file OpenCV reads; whole or not at all.

    Raises:
        UserError: the file is missing, truncated or not an image.
    """
    return decode_image(_read_bytes(path), path)


def decode_image(data: bytes, path: str | Path) -> np.ndarray:
    """As `read_image`, of a file's content; `path` is what messages call it."""
    if data[:2] == b"\xff\xd8" and data[-2:] != JPEG_END:
        _check_whole(path, data)
    _check_png_end(path, data)
    # OpenCV would turn files of some kinds, which ones depends on its version.
    mode = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, np.uint8), mode) if data else None
    if image is None:
        raise UserError(f"{path}: not a readable image ({len(data)} bytes)")
    return turn_upright(image, data)


def read_mask(path: str | Path) -> np.ndarray:
    """Raw label values (H, W) of an image file, palette indices included, or of a MATLAB file.

    An image file is turned upright by its own EXIF orientation.

    Raises:
        UserError: the file is missing, truncated, or has more than one channel.
    """
    if Path(path).suffix == ".mat":
        return read_mat(path)
    data = _read_bytes(path)
    _check_png_end(path, data)
    try:  # with Pillow, since OpenCV would expand a palette to colours
        with open_image(BytesIO(data)) as image:
            if image.mode not in ("L", "P", "1", "I;16", "I"):
                raise UserError(
                    f"{path}: a mask needs one channel of label values, found mode {image.mode}; "
                    "write class numbers, not colours"
                )
            raw = turn_upright(np.asarray(image), data)
            return raw.astype(np.uint8) if image.mode == "1" else raw
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path}: not a readable mask ({error})") from None


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
        content = loadmat(path, variable_names=MAT_VARIABLES)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # scipy raises many kinds for damaged files
        raise UserError(f"{path}: not a readable MATLAB file ({error})") from None
    for name in MAT_VARIABLES:
        if name in content:
            raw = content[name]["Segmentation"][0, 0] if name == "GTcls" else content[name]
            return raw if raw.dtype == np.uint8 else raw.astype(np.uint16)  # MATLAB likes doubles
    raise UserError(f"{path}: none of the variables {', '.join(MAT_VARIABLES)} is in the file")


def _read_bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


def _check_png_end(path: str | Path, data: bytes) -> None:
    if data[: len(PNG_START)] == PNG_START and PNG_END not in data[-4096:]:
        raise UserError(f"{path}: truncated PNG, its end is missing ({len(data)} bytes)")


def _check_whole(path: str | Path, data: bytes) -> None:
    """OpenCV fills what a truncated file lacks with grey and says nothing; Pillow refuses."""
    try:
        with open_image(BytesIO(data)) as image:
            image.load()
    except OSError as error:
        raise UserError(f"{path}: truncated or damaged image ({error})") from None


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
    if not path.is_file():
        found = sorted(other.stem for other in path.parent.glob("*.txt"))
        raise UserError(f"{path}: no such split list; found: {', '.join(found) or 'none'}")
    lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{path}: the split is empty; expected one name a line")
    return lines
