"""What an export of an annotation tool is, by its files."""

import json
from collections.abc import Callable
from pathlib import Path

from segtrain.errors import UserError
from segtrain.prepare.exports.coco import is_coco, read_coco
from segtrain.prepare.exports.cvat import read_cvat
from segtrain.prepare.exports.labelme import is_labelme, read_labelme
from segtrain.prepare.exports.model import Export, ImageFinder
from segtrain.prepare.exports.yolo import read_yolo

EXPECTED = (
    "YOLO segmentation (data.yaml), LabelMe (a JSON file an image), CVAT 1.1 (annotations.xml) or "
    "COCO JSON"
)


class NotAnExportError(UserError):
    """What was given is no export of an annotation tool that can be read, damaged or not."""


def read_export(path: Path, images: Path | None) -> Export:
    """Recognises an export and reads it.

    Args:
        path: its folder, or one of its files.
        images: folder of its images where they lie elsewhere.

    Raises:
        NotAnExportError: it is none of those that can be read.
        UserError: it is not there, could be several, or is damaged.
    """
    if not path.exists():
        raise UserError(
            f"{path}: no such file or folder; from=<folder> names an export: {EXPECTED}"
        )
    if path.suffix.lower() == ".zip":
        raise UserError(f"{path}: is packed; unpack it and give the folder")
    root = path if path.is_dir() else path.parent
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    finder = ImageFinder([root, images] if images else [root])
    documents = _documents([file for file in files if file.suffix.lower() == ".json"])
    labelme = {file: content for file, content in documents.items() if is_labelme(content)}
    coco = {file: content for file, content in documents.items() if is_coco(content)}
    cvat = [file for file in files if file.suffix.lower() == ".xml" and _is_cvat(file)]
    yolo = [file for file in files if _is_yolo(file)]
    readers: dict[str, Callable[[], Export]] = {}
    if yolo:
        readers["YOLO"] = lambda: read_yolo(yolo[0], finder)
    if labelme:
        readers["LabelMe"] = lambda: read_labelme(labelme, root, finder)
    if cvat:
        readers["CVAT"] = lambda: read_cvat(cvat, root, finder)
    if coco:
        readers["COCO JSON"] = lambda: read_coco(coco, root, finder)
    if len(readers) > 1 or len(yolo) > 1:
        found = ", ".join(str(file) for file in (*yolo, *labelme, *cvat, *coco)[:5])
        raise UserError(f"{path} holds several exports ({', '.join(readers)}: {found}); give one's "
                        "folder or file")  # fmt: skip
    if not readers:
        raise NotAnExportError(f"{path}: not an export that can be read; expected {EXPECTED}")
    return next(iter(readers.values()))()


def _documents(files: list[Path]) -> dict[Path, object]:
    found = {}
    for file in files:
        try:
            found[file] = json.loads(file.read_bytes())
        except (ValueError, RecursionError) as error:
            raise UserError(f"{file}: not readable JSON ({error})") from None
    return found


def _is_cvat(file: Path) -> bool:
    with open(file, "rb") as opened:
        return b"annotations" in opened.read(4096).replace(b"\0", b"")


def _is_yolo(file: Path) -> bool:
    if file.suffix.lower() in (".yaml", ".yml"):
        return any(
            line.startswith("names") for line in file.read_text("utf-8", "replace").split("\n")
        )
    return file.name == "classes.txt" and (file.parent / "labels").is_dir() and not any(
        file.parent.glob("*.y*ml")
    )  # fmt: skip
