"""Cityscapes' server: label ids of every pixel, or lists of masks."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from torch import Tensor

from segtrain.contracts import Detections
from segtrain.dataset.cityscapes import IMAGE_END
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.masks import decode
from segtrain.submit.instances import found_instances
from segtrain.submit.packing import check_label_maps, pack_zip, read_png, read_zip, require_values
from segtrain.submit.submission import SubmittedImage
from segtrain.writing import write_bytes, write_text

MASK_FOLDER = "masks"


class CityscapesFormat:
    """A grey PNG of label ids for each image, `<city>_<sequence>_<frame>_labelIds.png`, in a .zip.

    Args:
        labels: the 19 classes.
        split: as it is called.
        name: of the system, for the archive.
    """

    def __init__(self, labels: LabelSet, split: str, name: str) -> None:
        self.labels = labels
        self.archive = f"cityscapes_{split}_{name}.zip"

    def write(self, found: Tensor, image: SubmittedImage, folder: Path) -> None:
        """Writes the best class of each pixel, given scores (19, H, W)."""
        ids = self.labels.decode(found.argmax(0).cpu().numpy())
        write_png(folder / self._member(image), ids)

    def pack(self, folder: Path, images: list[SubmittedImage], archive: Path) -> None:
        """See `ServerFormat`."""
        pack_zip(archive, folder, map(self._member, images))

    def check(self, archive: Path, images: list[SubmittedImage]) -> None:
        """See `ServerFormat`."""
        ids = [raw for raw, train in self.labels.raw_to_train.items() if train is not None]
        expected = {self._member(image): image for image in images}
        check_label_maps(read_zip(archive), expected, None, ids)

    def _member(self, image: SubmittedImage) -> str:
        return f"{frame_of(image)}_labelIds.png"


class ListedMask(NamedTuple):
    """A line of an image's list."""

    path: str  # relative to the list
    label: int
    confidence: float


class CityscapesInstanceFormat:
    """`<city>_<sequence>_<frame>.txt` for each image in a .zip, and the masks that it lists.

    A line is the path of a PNG, 255 where the object is and 0 elsewhere, its label id and its
    confidence.

    Args:
        labels: the 8 classes with instances.
        split: as it is called.
        name: of the system, for the archive.
    """

    def __init__(self, labels: LabelSet, split: str, name: str) -> None:
        self.labels = labels
        self.archive = f"cityscapes_instances_{split}_{name}.zip"

    def write(self, found: Detections, image: SubmittedImage, folder: Path) -> None:
        """Writes the list of one image and its masks; objects without a pixel are left out."""
        lines = []
        for number, instance in enumerate(found_instances(found, image.size, self.labels)):
            mask = decode([instance.code], image.size)[0]
            if mask.any():
                path = f"{MASK_FOLDER}/{frame_of(image)}_{number}.png"
                write_png(folder / path, mask * np.uint8(255))
                lines.append(f"{path} {instance.raw} {instance.score}\n")
        write_text(folder / self._list(image), "".join(lines))

    def pack(self, folder: Path, images: list[SubmittedImage], archive: Path) -> None:
        """See `ServerFormat`."""
        pack_zip(archive, folder, self._members(folder, images))

    def check(self, archive: Path, images: list[SubmittedImage]) -> None:
        """See `ServerFormat`."""
        lists = {self._list(image): image for image in images}
        masks: dict[str, SubmittedImage] = {}
        for name, content in read_zip(archive):
            if name in masks:
                pixels = read_png(name, content, masks.pop(name).size, None)
                require_values(name, pixels, (0, 255))
                if not pixels.any():
                    raise UserError(f"{name}: the mask is empty")
            elif name in lists:
                image = lists.pop(name)
                masks |= {line.path: image for line in self._read_list(name, content.decode())}
            else:
                raise UserError(f"{name}: of no image and no list, or twice in the archive")
        if lists or masks:
            name, image = next(iter((lists | masks).items()))
            raise UserError(
                f"{name} of {image.name} is not in the archive ({len(lists | masks)} are missing)"
            )

    def _list(self, image: SubmittedImage) -> str:
        return f"{frame_of(image)}.txt"

    def _members(self, folder: Path, images: list[SubmittedImage]) -> Iterator[str]:
        """Each image's list, and then its masks."""
        for image in images:
            name = self._list(image)
            yield name
            yield from (line.path for line in self._read_list(name, (folder / name).read_text()))

    def _read_list(self, name: str, text: str) -> list[ListedMask]:
        """The lines of an image's list.

        Raises:
            UserError: one is not a mask, a label id and a confidence; names it.
        """
        found = []
        for line in text.splitlines():
            try:
                path, label, confidence = line.split(" ")
                listed = ListedMask(path, int(label), float(confidence))
            except ValueError:
                raise UserError(f"{name}: '{line}' is not <mask> <label id> <confidence>") from None
            if self.labels.raw_to_train.get(listed.label) is None:
                raise UserError(f"{name}: label id {label} is of no class with instances")
            if not math.isfinite(listed.confidence):
                raise UserError(f"{name}: confidence {confidence} is no number")
            found.append(listed)
        if len({listed.path for listed in found}) < len(found):
            raise UserError(f"{name}: lists a mask twice")
        return found


def frame_of(image: SubmittedImage) -> str:
    """`<city>_<sequence>_<frame>`.

    Raises:
        UserError: the image's file is called otherwise.
    """
    frame = Path(image.name).name.removesuffix(IMAGE_END)
    if not re.fullmatch(r"[a-zA-Z-]+_\d{6}_\d{6}", frame):
        raise UserError(f"{image.name}: expected <city>_<6 digits>_<6 digits>{IMAGE_END}")
    return frame


def write_png(path: Path, pixels: np.ndarray) -> None:
    """A grey PNG of (H, W) uint8."""
    write_bytes(path, cv2.imencode(".png", pixels)[1].data)  # imwrite is silent if it fails
