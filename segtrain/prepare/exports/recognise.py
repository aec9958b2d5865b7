"""What an export of an annotation tool is, by its files."""

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.parsers import expat

from segtrain.dataset.files import read_bytes, read_lines, require_folder, require_regular
from segtrain.errors import UserError
from segtrain.prepare.exports.coco import is_coco, read_coco
from segtrain.prepare.exports.cvat import read_cvat
from segtrain.prepare.exports.finder import ARCHIVES, SPLITS, ImageFinder, visible_files
from segtrain.prepare.exports.label_studio import is_label_studio, read_label_studio
from segtrain.prepare.exports.labelme import is_labelme, read_labelme
from segtrain.prepare.exports.model import Export
from segtrain.prepare.exports.supervisely import CLASS_FILE, is_supervisely, read_supervisely
from segtrain.prepare.exports.via import is_via, read_via
from segtrain.prepare.exports.yolo import find_yolo, read_yolo
from segtrain.prepare.extract import extract

EXPECTED = (
    "YOLO segmentation (data.yaml), CVAT 1.1 (annotations.xml), COCO JSON, or the JSON of LabelMe, "
    "Label Studio, VIA or Supervisely"
)
ANNOTATION_FOLDERS = ("annotations", "labels")  # beside the folder of the images
# The tool's name -> whether a JSON file is one of its, and the reader of all that are.
JSON_FORMATS: dict[str, tuple[Callable[[object], bool], Callable[..., Export]]] = {
    "LabelMe": (is_labelme, read_labelme),
    "COCO JSON": (is_coco, read_coco),
    "Label Studio": (is_label_studio, read_label_studio),
    "VIA": (is_via, read_via),
    "Supervisely": (is_supervisely, read_supervisely),
}


class NotAnExportError(UserError):
    """What was given is no export of an annotation tool that can be read, damaged or not."""


def read_export(path: Path, images: Path | None, unpack_in: Path | None = None) -> Export:
    """Recognises an export and reads it.

    Args:
        path: its folder, one of its files, or an archive of it.
        images: folder of its images where they lie elsewhere.
        unpack_in: folder in which an archive is unpacked, for as long as the export is used; None
            for the system's.

    Raises:
        NotAnExportError: it is none of those that can be read.
        UserError: it is not there, could be several, or is damaged.
    """
    if not path.exists():
        raise UserError(
            f"{path}: no such file or folder; from=<folder> names an export: {EXPECTED}"
        )
    if images is not None:
        require_folder(images, "images=<folder> names the images of an export")
    if path.is_dir():
        return _read(path, images)
    require_regular(path)
    if not path.name.lower().endswith(ARCHIVES):
        return _read(path, images)
    if unpack_in is not None:
        unpack_in.mkdir(parents=True, exist_ok=True)
    unpacked = TemporaryDirectory(prefix=".segtrain-", dir=unpack_in)
    try:
        extract(path, Path(unpacked.name))
        export = _read(Path(unpacked.name), images)
    except UserError as error:
        unpacked.cleanup()
        raise type(error)(str(error).replace(unpacked.name, str(path))) from None
    export.unpacked = unpacked
    return export


def _read(path: Path, images: Path | None) -> Export:
    root = path if path.is_dir() else path.parent
    if path.is_file() and root.name.lower() in ANNOTATION_FOLDERS:
        root = root.parent
    files = visible_files(path) if path.is_dir() else [path]
    finder = ImageFinder([root, images] if images else [root])
    documents = _documents([file for file in files if file.suffix.lower() == ".json"])
    tags = {file: root_tag(file) for file in files if file.suffix.lower() == ".xml"}
    unread = {file for file in documents if file.name != CLASS_FILE}
    readers: dict[str, tuple[list[Path], Callable[[], Export]]] = {}
    yolo = find_yolo(files)
    if yolo:
        readers["YOLO"] = yolo, lambda: read_yolo(yolo[0], finder)
    cvat = [file for file, tag in tags.items() if tag in ("annotations", None)]
    if cvat:
        readers["CVAT"] = cvat, lambda: read_cvat(cvat, root, finder)
    for name, (is_one, read) in JSON_FORMATS.items():
        found = {file: content for file, content in documents.items() if is_one(content)}
        if found:
            readers[name] = list(found), lambda read=read, found=found: read(found, root, finder)
            unread -= found.keys()
    if len(readers) > 1 or len(yolo) > 1:
        places = ", ".join(str(file) for found, _ in readers.values() for file in found[:2])
        raise UserError(f"{path} holds several exports ({', '.join(readers)}: {places}); give "
                        "one's folder or file")  # fmt: skip
    if readers:
        try:
            export = next(iter(readers.values()))[1]()
            _split_by_lists(export, root, finder)
            _note_rest(export, sorted(unread), finder)
            return export
        except RecursionError:
            raise UserError(f"{path}: lists in one another, deeper than any export has") from None
    boxes = next((file for file, tag in tags.items() if tag == "annotation"), None)
    if boxes is not None:
        raise NotAnExportError(
            f"{boxes}: an XML file of Pascal VOC tells boxes, which are no outlines (its masks are "
            "read by dataset=folder), and one of the LabelMe website is not read"
        )
    raise NotAnExportError(f"{path}: not an export that can be read; expected {EXPECTED}")


def _split_by_lists(export: Export, root: Path, images: ImageFinder) -> None:
    """Splits by `train.txt`, `val.txt` and `test.txt` where the export itself has none, a name with
    or without its ending a line."""
    lists = {root / f"{name}.txt": split for name, split in SPLITS.items()}
    lists = {file: split for file, split in lists.items() if file.is_file()}
    if not lists or any(picture.splits for picture in export.pictures.values()):
        return
    pictures = {picture.file: picture for picture in export.pictures.values()}
    for file, split in lists.items():
        for name in read_lines(file):
            found = images.find(name)
            picture = pictures.get(found.resolve()) if found else None
            if picture is None:
                export.drop("names in lists of no image", f"{file.name}: {name}")
            else:
                picture.splits |= {split}
    for name in [name for name, picture in export.pictures.items() if not picture.splits]:
        del export.pictures[name]
        export.drop("images that no list names", name)


def _note_rest(export: Export, documents: list[Path], images: ImageFinder) -> None:
    """Notes files that belong to nothing: an export may have lost what named them."""
    for file in documents:
        export.note("JSON files of another kind, which were not read", file.name)
    taken = {picture.file for picture in export.pictures.values()}
    for file in images:
        if file not in images.names and file.resolve() not in taken:
            export.note("images that the export does not name", file.name)


def root_tag(file: Path) -> str | None:
    """The name of an XML file's first element; None where there is none to be read."""
    found: list[str] = []
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda name, _: found or found.append(name)
    try:
        with open(file, "rb") as opened:
            while not found and (block := opened.read(4096)):
                parser.Parse(block)
    except (expat.ExpatError, ValueError, LookupError):
        pass  # its reader will say what is wrong
    return found[0] if found else None


def _documents(files: list[Path]) -> dict[Path, object]:
    found = {}
    for file in files:
        try:
            found[file] = json.loads(read_bytes(file))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{file}: not readable JSON ({error})") from None
    return found
