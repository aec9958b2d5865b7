"""The one source for sets of image and mask files."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from segtrain.contracts import LabelSet
from segtrain.errors import UserError

JPEG_END = b"\xff\xd9"


class Pair(NamedTuple):
    """Paths of one image and of its mask."""

    image: str
    mask: str


class ImageMaskPairs:
    """One split of a set whose masks are single-channel or palette files of raw label values.

    Args:
        pairs: the split's files, in a fixed order.
        labels: turns raw mask values into train ids.
        root: left out of the names that messages show.
    """

    def __init__(self, pairs: list[Pair], labels: LabelSet, root: str | Path) -> None:
        self.pairs = pairs
        self.labels = labels
        self.root = Path(root)

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        return str(Path(self.pairs[index].image).relative_to(self.root))

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) uint8 RGB and mask (H, W) uint8 train ids.

        Raises:
            UserError: a file is missing, truncated or no image; the sizes differ; a mask value
                is not in the label map. The message names the file.
        """
        pair = self.pairs[index]
        image = read_image(pair.image)
        raw = read_mask(pair.mask)
        if raw.shape != image.shape[:2]:
            raise UserError(
                f"{pair.mask}: the mask is {raw.shape[1]}x{raw.shape[0]} but its image "
                f"{pair.image} is {image.shape[1]}x{image.shape[0]} (width x height)"
            )
        try:
            return image, self.labels.encode(raw)
        except UserError as error:
            raise UserError(f"{pair.mask}: {error}") from None


def read_image(path: str | Path) -> np.ndarray:
    """RGB (H, W, 3) uint8 of any file OpenCV reads; whole or not at all.

    Raises:
        UserError: the file is missing, truncated or not an image.
    """
    data = _read_bytes(path)
    if data[:2] == b"\xff\xd8" and data[-2:] != JPEG_END:
        _check_jpeg_end(path)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    if image is None:
        raise UserError(f"{path}: not a readable image ({len(data)} bytes)")
    return image


def read_mask(path: str | Path) -> np.ndarray:
    """Raw label values (H, W), palette indices included (OpenCV would expand a palette to colours).

    Raises:
        UserError: the file is missing, truncated, or has more than one channel.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P", "1", "I;16", "I"):
                raise UserError(
                    f"{path}: a mask needs one channel of label values, found mode {image.mode}; "
                    "write class numbers, not colours"
                )
            raw = np.asarray(image)
            return raw.astype(np.uint8) if image.mode == "1" else raw
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path}: not a readable mask ({error})") from None


def _read_bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


def _check_jpeg_end(path: str | Path) -> None:
    """OpenCV fills what a truncated JPEG lacks with grey and says nothing; Pillow refuses."""
    try:
        with Image.open(path) as image:
            image.load()
    except OSError as error:
        raise UserError(f"{path}: truncated or damaged JPEG ({error})") from None


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
