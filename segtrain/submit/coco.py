"""COCO's server: one JSON with the masks of all images."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pycocotools import mask as rle

from segtrain.contracts import Detections
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.submit.instances import found_instances
from segtrain.submit.packing import require_files
from segtrain.submit.submission import SubmittedImage
from segtrain.writing import write_text

KEYS = {"image_id", "category_id", "segmentation", "score"}


class CocoFormat:
    """`detections_<split>_<name>_results.json` in a .zip of the same name.

    Entries have no box: the server would take their areas from it, not from the mask.

    Args:
        labels: the classes; raw values are category ids.
        split: as COCO calls it.
        name: of the system.
    """

    def __init__(self, labels: LabelSet, split: str, name: str) -> None:
        self.labels = labels
        stem = f"detections_{split}_{name}_results"
        self.json = f"{stem}.json"
        self.archive = f"{stem}.zip"

    def write(self, found: Detections, image: SubmittedImage, folder: Path) -> None:
        """Writes the entries of one image, one a line."""
        lines = []
        for instance in found_instances(found, image.size, self.labels):
            code = {"size": image.size, "counts": instance.code.decode()}
            entry = {"image_id": image.image_id, "category_id": instance.raw,
                     "segmentation": code, "score": instance.score}  # fmt: skip
            lines.append(json.dumps(entry) + "\n")
        write_text(folder / self._file(image), "".join(lines))

    def pack(self, folder: Path, images: list[SubmittedImage], archive: Path) -> None:
        """See `ServerFormat`."""
        with (
            zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed,
            packed.open(self.json, "w", force_zip64=True) as target,
        ):
            start = b"[\n"
            for _, path in require_files(folder, map(self._file, images)):
                for line in path.read_bytes().splitlines():
                    target.write(start + line)
                    start = b",\n"
            target.write(b"[\n]\n" if start == b"[\n" else b"\n]\n")

    def check(self, archive: Path, images: list[SubmittedImage]) -> None:
        """See `ServerFormat`. Images without an instance do not show in the file."""
        sizes = {image.image_id: image.size for image in images}
        if len(sizes) < len(images):
            raise UserError("image ids stand twice in the split; the server wants an image once")
        with zipfile.ZipFile(archive) as packed:
            if packed.namelist() != [self.json]:
                raise UserError(f"{archive}: {packed.namelist()}, expected {self.json} alone")
            with packed.open(self.json) as file:
                for number, entry in enumerate(read_entries(file, self.json)):
                    self._check_entry(f"{self.json}, entry {number}", entry, sizes)

    def _check_entry(self, place: str, entry: dict, sizes: dict[int, tuple[int, int]]) -> None:
        if entry.keys() != KEYS:
            raise UserError(f"{place}: has {', '.join(entry)}; expected {', '.join(sorted(KEYS))}")
        if entry["image_id"] not in sizes:
            raise UserError(f"{place}: image {entry['image_id']} is not in the split")
        size, mask = sizes[entry["image_id"]], entry["segmentation"]
        if self.labels.raw_to_train.get(entry["category_id"]) is None:
            raise UserError(f"{place}: category id {entry['category_id']} is not COCO's")
        if tuple(mask["size"]) != size or rle.area(mask) > size[0] * size[1]:
            raise UserError(f"{place}: a mask of {mask['size']}, its image is {list(size)}")
        if not 0 <= entry["score"] <= 1:
            raise UserError(f"{place}: score {entry['score']} is not in 0..1")

    def _file(self, image: SubmittedImage) -> str:
        return f"{image.image_id}.jsonl"


def read_entries(file: IO[bytes], name: str) -> Iterator[dict]:
    """Entries of a JSON list that stand on a line each, without holding all of them.

    Raises:
        UserError: it is not such a list; names file and line.
    """
    number, goes_on = 1, True
    if file.readline().strip() != b"[":
        raise UserError(f"{name}: not a list of one entry a line")
    for number, line in enumerate(file, 2):
        text = line.strip()
        if text == b"]" and not file.read(1) and (number == 2 or not goes_on):
            return
        if not goes_on:
            break
        goes_on = text.endswith(b",")
        try:
            yield json.loads(text.removesuffix(b","))
        except ValueError as error:
            raise UserError(f"{name}, line {number}: {error}") from None
    raise UserError(f"{name}, line {number}: not a list of one entry a line")
