"""What both kinds of prediction share: names of classes, cut-outs, and their files."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from segtrain.configuration.messages import nearest
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.notebook import PICTURE_SIDES
from segtrain.picture import Picture
from segtrain.writing import write_json, write_picture

OVERLAY_SIDES = (512, 1600)  # pixels, of an overlay's longer side: less is enlarged, more reduced


def class_id(labels: LabelSet, name: str) -> int:
    """The train id of a class.

    Raises:
        UserError: there is no such class.
    """
    if name not in labels.names:
        raise UserError(f"the network knows no class '{name}'; {nearest(name, list(labels.names))}")
    return labels.names.index(name)


def cut_out(image: np.ndarray, mask: np.ndarray) -> Image.Image:
    """The masked pixels of an image (H, W, 3), all others transparent and black: (W, H) RGBA."""
    pixels = np.zeros((*mask.shape, 4), np.uint8)
    pixels[..., :3][mask] = image[mask]
    pixels[..., 3] = mask * np.uint8(255)
    return Image.fromarray(pixels)


def overlay_side(image: np.ndarray) -> int:
    """The longer side of an image's overlay, in pixels."""
    return int(np.clip(max(image.shape[:2]), *OVERLAY_SIDES))


def shown_side(image: np.ndarray) -> int:
    """The longer side of an image's overlay in a notebook, in pixels."""
    return int(np.clip(max(image.shape[:2]), *PICTURE_SIDES))


def size_of(image: np.ndarray) -> str:
    """`640 x 480 pixels`."""
    return "{} x {} pixels".format(*image.shape[1::-1])


def described(picture: Picture) -> dict:
    """Size and orientation of a picture as the JSON file has them."""
    height, width = picture.pixels.shape[:2]
    return {"width": width, "height": height, "orientation": "upright",
            "exif_orientation": picture.orientation}  # fmt: skip


def start_files(folder: str | Path, stem: str) -> Path:
    """`<folder>/<stem>`, to which endings are added; the folder is made if need be."""
    base = Path(folder) / stem
    base.parent.mkdir(parents=True, exist_ok=True)
    return base


def write_files(
    base: Path,
    image: np.ndarray,
    overlay: Image.Image,
    summary: dict,
    masks: dict[str, np.ndarray],
    with_cutouts: bool = True,
) -> list[Path]:
    """Writes overlay, JSON, and a class's mask and cut-out where there is something to cut out.

    Args:
        base: the files' names without their endings.
        image: (H, W, 3) uint8 RGB.
        overlay: of any size.
        summary: the content of the JSON file.
        masks: (H, W) bool by the class's name.
        with_cutouts: whether cut-outs are written.

    Returns:
        The files.
    """
    written = [named(base, "_overlay.jpg"), named(base, ".json")]
    write_picture(overlay, written[0], quality=92)
    write_json(written[1], summary)
    for name, mask in masks.items():
        part = re.sub(r"[^\w-]+", "_", name)
        written.append(named(base, f"_{part}_mask.png"))
        write_picture(Image.fromarray(mask * np.uint8(255)), written[-1])
        if with_cutouts and mask.any():
            written.append(named(base, f"_{part}_cutout.png"))
            write_picture(cut_out(image, mask), written[-1])
    return written


def named(base: Path, ending: str) -> Path:
    """`base` with an ending, whatever dots its name has."""
    return base.with_name(base.name + ending)
