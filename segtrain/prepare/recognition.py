"""What `data=` names: one of the data sets, or annotated pictures of one's own."""

import difflib
import hashlib
import json
import logging
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from segtrain.configuration.folder import options
from segtrain.errors import UserError

logger = logging.getLogger("segtrain")

OWN = {"folder", "coco_json", "coco_json_instances"}  # data sets that need a folder
SHOWN = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".json", ".xml", ".txt",
         ".yaml", ".zip")  # fmt: skip
EXAMPLE = """the simplest layout is
  photos/images/a.jpg   photos/masks/a.png   photos/classes.txt (one class a line)
or a COCO JSON, a YOLO data.yaml, or what LabelMe or CVAT export (docs/own-data.md)"""


class Recognised(NamedTuple):
    """A data set that was found.

    Args:
        overrides: of the full keys that choose it.
        told: what it is, in a line for people.
    """

    overrides: list[str]
    told: str


def recognise(given: str, instances: bool) -> Recognised:
    """Tell what the value of `data=` is; annotations of other tools are converted into the cache.

    Args:
        given: a data set's name, or a folder or file with annotations.
        instances: whether a detector wants it.

    Raises:
        UserError: it is none of what can be read, or damaged.
    """
    path = Path(given).expanduser()
    if given in options("dataset") and given not in OWN:
        return Recognised([f"dataset={given}"], f"the data set {given}")
    if given.startswith("hf:"):
        raise UserError(f"data={given}: data sets of the Hugging Face hub are not read; download "
                        "it and give the folder")  # fmt: skip
    if not path.exists():
        near = difflib.get_close_matches(given, options("dataset"), n=1, cutoff=0.7)
        hint = f"did you mean data={near[0]}?" if near else EXAMPLE
        raise UserError(
            f"data={given}: no such folder or file, and no data set of that name; {hint}"
        )
    if path.is_dir():
        found = _own_layout(path, instances)
        if found is None and not instances:
            found = _mask_files(path)
        if found is not None:
            return found
    return _export(path, instances)


def _own_layout(root: Path, instances: bool) -> Recognised | None:
    """What is read as it lies."""
    if not (root / "images").is_dir():
        return None
    lists = (root / "classes.txt", root / "labelmap.txt")
    if not instances and (root / "masks").is_dir() and any(path.exists() for path in lists):
        return _chosen("folder", root, "a folder of images and masks")
    if (root / "train.json").is_file() and (root / "val.json").is_file():
        kind = "objects" if instances else "label maps painted from the objects"
        return _chosen(_coco(instances), root, f"COCO JSON, train.json and val.json, as {kind}")
    return None


def _mask_files(root: Path) -> Recognised | None:
    """Images with mask files in another layout than our own, converted once."""
    from segtrain.dataset.cache import cached_folder, files_fingerprint
    from segtrain.prepare.masks.layout import find_labelled
    from segtrain.prepare.masks.write import write_folder

    labelled = find_labelled(root)
    if not labelled:
        return None
    files = sorted(file for file in root.rglob("*") if file.is_file())
    key = files_fingerprint(files)

    def build(folder: Path) -> None:
        labels = write_folder(root, labelled, folder)
        logger.info("converted   %d images, classes %s", len(labelled), ", ".join(labels.names))

    folder = cached_folder(_cache_name(root, "masks"), key, build)
    told = f"{len(labelled)} images with masks, read as {folder}"
    return _chosen("folder", folder, told)


def _export(path: Path, instances: bool) -> Recognised:
    """What an annotation tool exported, converted once."""
    from segtrain.dataset.cache import cached_folder, files_fingerprint
    from segtrain.prepare.exports.recognise import read_export
    from segtrain.prepare.exports.write import describe, write_export

    root = path if path.is_dir() else path.parent
    files = sorted(file for file in root.rglob("*") if file.is_file())
    told: list[str] = []

    def build(folder: Path) -> None:
        try:
            export = read_export(path, None)
        except UserError as error:
            if "not an export that can be read" not in str(error):
                raise
            raise UserError(_nothing(path, files)) from None
        write_export(export, folder / "data", val_share=0.2, seed=0)
        logger.info("%s", describe(export))
        told.append(f"{export.kind}, {len(export.pictures)} images, classes "
                    + ", ".join(export.classes))  # fmt: skip
        (folder / "told.json").write_text(json.dumps(told[0]), encoding="utf-8")

    name = _cache_name(path, "export")
    folder = cached_folder(name, files_fingerprint(files), build)
    said = json.loads((folder / "told.json").read_text(encoding="utf-8"))
    return _chosen(_coco(instances), folder / "data", f"{said}; read as {folder / 'data'}")


def _coco(instances: bool) -> str:
    return "coco_json_instances" if instances else "coco_json"


def _chosen(dataset: str, root: Path, told: str) -> Recognised:
    return Recognised([f"dataset={dataset}", f"dataset.source.root={root}"], told)


def _cache_name(path: Path, kind: str) -> str:
    """Of the folder in the cache: what is converted from one place takes its place later."""
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    return f"{kind}/{digest}"


def _nothing(path: Path, files: list[Path]) -> str:
    """What was found where nothing could be recognised."""
    endings = Counter(file.suffix.lower() for file in files)
    counts = [f"{endings[ending]} {ending}" for ending in SHOWN if endings[ending]]
    return (
        f"data={path}: no annotations that can be read; found {', '.join(counts) or 'no file'}; "
        f"looked for masks beside the images, COCO JSON, YOLO, LabelMe and CVAT; {EXAMPLE}"
    )
