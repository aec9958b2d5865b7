"""COCO's and Cityscapes' servers for panoptic segmentation: PNGs of segment ids, and one JSON."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from segtrain.contracts import Segments
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.segments import id_colours
from segtrain.submit.cityscapes import frame_of
from segtrain.submit.packing import read_png, require_files
from segtrain.submit.submission import SubmittedImage
from segtrain.writing import write_picture, write_text


class Names(NamedTuple):
    """What a server calls an image."""

    image_id: int | str
    png: str


class PanopticFormat:
    """`<stem>.json` and the PNGs of the folder `<stem>/` in a .zip, in COCO's panoptic format.

    Args:
        labels: the classes; their raw values are category ids.
        stem: of the names.
        archive: name of the .zip.
        names: of an image.
    """

    def __init__(
        self, labels: LabelSet, stem: str, archive: str, names: Callable[[SubmittedImage], Names]
    ) -> None:
        self.labels = labels
        self.stem = stem
        self.archive = archive
        self.names = names

    def write(self, found: Segments, image: SubmittedImage, folder: Path) -> None:
        """Writes the PNG of one image and its entry; segments without a pixel are left out."""
        own = self.names(image)
        ids = found["map"].cpu().numpy()
        categories = self.labels.decode(found["labels"].cpu().numpy()).tolist()
        visible = np.bincount(ids.ravel(), minlength=len(categories) + 1)[1:]
        segments = [
            {"id": number, "category_id": category}
            for number, category in enumerate(categories, 1) if visible[number - 1]
        ]  # fmt: skip
        entry = {"image_id": own.image_id, "file_name": own.png, "segments_info": segments}
        write_picture(Image.fromarray(id_colours(ids)), folder / self.stem / own.png)
        write_text(folder / self._entry(image), json.dumps(entry))

    def pack(self, folder: Path, images: list[SubmittedImage], archive: Path) -> None:
        """See `ServerFormat`."""
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            with packed.open(f"{self.stem}.json", "w", force_zip64=True) as target:
                target.write(b'{"annotations": [')
                for number, (_, path) in enumerate(require_files(folder, map(self._entry, images))):
                    target.write((b",\n" if number else b"\n") + path.read_bytes())
                target.write(b"\n]}\n")
            for name, path in require_files(folder, map(self._png, images)):
                packed.write(path, name)

    def check(self, archive: Path, images: list[SubmittedImage]) -> None:
        """See `ServerFormat`."""
        with zipfile.ZipFile(archive) as packed:
            entries = json.loads(packed.read(f"{self.stem}.json"))["annotations"]
            expected = [self.names(image) for image in images]
            if len({own.image_id for own in expected}) < len(expected):
                raise UserError("image ids stand twice in the split; the server wants an image "
                                "once")  # fmt: skip
            for image, own, entry in zip(images, expected, entries, strict=True):
                if (entry["image_id"], entry["file_name"]) != own:
                    raise UserError(f"{self.stem}.json: {entry['file_name']} stands where "
                                    f"{own.png} is expected")  # fmt: skip
                content = packed.read(self._png(image))
                pixels = read_png(own.png, content, image.size, None, grey=False)
                self._check_entry(own.png, entry, pixels)

    def _check_entry(self, name: str, entry: dict, pixels: np.ndarray) -> None:
        """The rules of the official evaluation: JSON and PNG have the same segments."""
        shown = set(np.unique(pixels @ np.array([1, 256, 65536])).tolist()) - {0}
        listed = [segment["id"] for segment in entry["segments_info"]]
        if len(set(listed)) < len(listed) or set(listed) != shown:
            wrong = sorted(set(listed) ^ shown) or listed
            raise UserError(f"{name}: segment {wrong[0]} is not once in the JSON and in the PNG")
        for segment in entry["segments_info"]:
            if self.labels.raw_to_train.get(segment["category_id"]) is None:
                raise UserError(f"{name}: category id {segment['category_id']} is of no class")

    def _entry(self, image: SubmittedImage) -> str:
        return f"{self.names(image).png}.json"

    def _png(self, image: SubmittedImage) -> str:
        return f"{self.stem}/{self.names(image).png}"


def coco_panoptic(labels: LabelSet, split: str, name: str) -> PanopticFormat:
    """`panoptic_<split>_<name>_results.zip`; images have the numbers of their files.

    Args:
        labels: the 133 classes.
        split: as COCO calls it.
        name: of the system.
    """
    stem = f"panoptic_{split}_{name}_results"
    return PanopticFormat(labels, stem, f"{stem}.zip", coco_names)


def coco_names(image: SubmittedImage) -> Names:
    """The number and the PNG of an image.

    Raises:
        UserError: its file is not called by a number.
    """
    stem = Path(image.name).stem
    if not stem.isdecimal():
        raise UserError(f"{image.name}: expected a file that is called by its number, as COCO's")
    return Names(int(stem), f"{stem}.png")


def cityscapes_panoptic(labels: LabelSet, split: str, name: str) -> PanopticFormat:
    """`cityscapes_panoptic_<split>_<name>.zip`; inside, names are as the official script has them.

    Args:
        labels: the 19 classes.
        split: as it is called.
        name: of the system, for the archive.
    """
    stem = f"cityscapes_panoptic_{split}"
    return PanopticFormat(labels, stem, f"{stem}_{name}.zip", cityscapes_names)


def cityscapes_names(image: SubmittedImage) -> Names:
    """The frame, by which the server knows the image, and its PNG."""
    frame = frame_of(image)
    return Names(frame, f"{frame}_gtFine_panoptic.png")
