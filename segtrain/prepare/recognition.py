"""What `data=` names: one of the data sets, or annotated pictures of one's own."""

import difflib
import hashlib
import json
import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from segtrain.configuration.folder import options
from segtrain.errors import UserError
from segtrain.prepare.exports.finder import ARCHIVES, SPLITS
from segtrain.text import shortened

if TYPE_CHECKING:
    from segtrain.prepare.exports.model import Export

logger = logging.getLogger("segtrain")

OWN = {"folder", "folder_multilabel", "coco_json", "coco_json_instances",
       "coco_json_multilabel", "folder_panoptic"}  # fmt: skip  # data sets that need a folder
SHOWN = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".json", ".xml", ".txt",
         ".yaml", ".zip")  # fmt: skip
NAMED = 12  # classes
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


def recognise(given: str, instances: bool, multilabel: bool = False) -> Recognised:
    """Tell what the value of `data=` is; annotations of other tools are converted into the cache.

    Args:
        given: a data set's name, or a folder or file with annotations.
        instances: whether a detector wants it.
        multilabel: whether classes may overlap.

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
    if path.is_file() and path.name.lower().endswith(ARCHIVES):
        path = _unpacked(path)
    coco = _coco(instances, multilabel)
    annotations = path / "annotations"
    official = {kind: any(annotations.glob(f"{kind}_*.json")) for kind in ("panoptic", "instances")}
    if official["panoptic"] and not official["instances"] and not instances:
        return _chosen("coco_panoptic", path, "panoptic annotations in COCO's own layout")
    if path.suffix.lower() == ".json" and (path.parent / "images").is_dir():
        found = _one_file(path, coco)
        if found is not None:
            return found
    if path.is_dir():
        found = _own_layout(path, coco)
        if found is None and not instances:
            found = _mask_files(path, multilabel)
        if found is not None:
            return found
    return _export(path, coco)


def _own_layout(root: Path, coco: str) -> Recognised | None:
    """What is read as it lies."""
    if not (root / "images").is_dir():
        return None
    lists = (root / "classes.txt", root / "labelmap.txt")
    if coco == "coco_json" and any(path.exists() for path in lists) and _in_pairs(root):
        return _chosen("folder", root, "a folder of images and masks")
    files = sorted(root.glob("*.json"))
    if {"train.json", "val.json"} <= {file.name for file in files}:
        kind = _kind((root / "train.json").read_bytes(), coco)
        return _chosen(kind, root, "COCO JSON, train.json and val.json")
    return _one_file(files[0], coco) if len(files) == 1 else None


def _in_pairs(root: Path) -> bool:
    """Whether the images have masks of their own names, and no folders that stand for splits."""
    from segtrain.prepare.exports.finder import IMAGE_ENDINGS

    names = []
    for folder in ("images", "masks"):
        files = [
            file for file in (root / folder).rglob("*") if file.suffix.lower() in IMAGE_ENDINGS
        ]
        names.append({file.relative_to(root / folder).with_suffix("") for file in files})
    splits = {name.parts[0].lower() for name in names[0] if len(name.parts) > 1}
    return bool(names[1]) and names[0] & names[1] != set() and not splits & SPLITS.keys()


def _one_file(file: Path, coco: str) -> Recognised | None:
    """A COCO JSON beside its `images/`, of which a share is val."""
    from segtrain.prepare.exports.coco import is_coco

    try:
        text = file.read_bytes()
        content = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return None  # whoever reads it says what is wrong
    kind = _kind(text, coco)
    if kind == coco and not is_coco(content):
        return None
    found = _chosen(kind, file.parent, f"COCO JSON {file.name}")
    return Recognised([*found.overrides, f"dataset.source.annotations={file.name}"], found.told)


def _kind(text: bytes, coco: str) -> str:
    """The data set that reads a COCO JSON; panoptic ones have segments in place of objects."""
    return "folder_panoptic" if b'"segments_info"' in text else coco


def _mask_files(root: Path, multilabel: bool) -> Recognised | None:
    """Images with mask files in another layout than our own, converted once."""
    from segtrain.dataset.cache import cached_folder, files_fingerprint
    from segtrain.prepare.masks.layout import find_labelled
    from segtrain.prepare.masks.planes import write_planes
    from segtrain.prepare.masks.write import write_folder

    labelled = find_labelled(root)
    if not labelled:
        return None
    files = sorted(file for file in root.rglob("*") if file.is_file())
    key = files_fingerprint(files)

    def build(folder: Path) -> None:
        labels = (write_planes if multilabel else write_folder)(root, labelled, folder)
        told = f"{len(labelled)} images with masks, classes {shortened(labels.names, NAMED)}"
        (folder / "told.json").write_text(json.dumps(told), encoding="utf-8")

    kind = "planes" if multilabel else "masks"
    folder = cached_folder(_cache_name(root, kind), key, build)
    told = json.loads((folder / "told.json").read_text(encoding="utf-8"))
    dataset = "folder_multilabel" if multilabel else "folder"
    return _chosen(dataset, folder, f"{told}; read as {folder}")


def _unpacked(archive: Path) -> Path:
    """The folder that an archive holds, unpacked once."""
    from segtrain.dataset.cache import cached_folder, files_fingerprint
    from segtrain.prepare.extract import extract

    key = files_fingerprint([archive])
    folder = cached_folder(_cache_name(archive, "archive"), key,
                           lambda folder: extract(archive, folder / "content"))  # fmt: skip
    inside = [entry for entry in (folder / "content").iterdir() if entry.name != "__MACOSX"]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder / "content"


def _export(path: Path, coco: str) -> Recognised:
    """What an annotation tool exported, converted once."""
    from segtrain.dataset.cache import cached_folder, files_fingerprint
    from segtrain.dataset.coco_json import is_class
    from segtrain.prepare.exports.write import describe, write_export

    root = path if path.is_dir() else path.parent
    files = sorted(file for file in root.rglob("*") if file.is_file())

    def build(folder: Path) -> None:
        export = _read_export(path, files)
        write_export(export, folder / "data", val_share=0.2, seed=0)
        logger.info("%s", describe(export))
        names = [name for name in export.classes if is_class(name)]
        told = f"{export.kind}, {len(export.pictures)} images, classes {shortened(names, NAMED)}"
        (folder / "told.json").write_text(json.dumps(told), encoding="utf-8")

    folder = cached_folder(_cache_name(path, "export"), files_fingerprint(files), build)
    told = json.loads((folder / "told.json").read_text(encoding="utf-8"))
    return _chosen(coco, folder / "data", f"{told}; read as {folder / 'data'}")


def _read_export(path: Path, files: list[Path]) -> "Export":
    """The export, with images of the folders beside it where none lies in it."""
    from segtrain.prepare.exports.recognise import NotAnExportError, read_export

    try:
        export = read_export(path, None)
    except NotAnExportError as error:
        raise UserError(f"{_nothing(path, files)}\n{error}") from None
    if export.pictures:
        return export
    root = path if path.is_dir() else path.parent
    beside = read_export(path, root.resolve().parent)
    if beside.pictures:
        logger.info("images      none in %s; those of %s are taken", root, root.resolve().parent)
    return beside


def _coco(instances: bool, multilabel: bool) -> str:
    if multilabel:
        return "coco_json_multilabel"
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
