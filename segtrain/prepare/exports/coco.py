"""COCO JSON as other tools write it: CVAT, Roboflow, Label Studio and plain converters."""

from pathlib import Path

from segtrain.dataset.coco_json import is_class
from segtrain.errors import UserError
from segtrain.prepare.exports.finder import ImageFinder, split_of
from segtrain.prepare.exports.model import MISSING, Export, Picture, Shape, told_size

ROBOFLOW_FILE = "_annotations.coco.json"
PARTS = ("images", "annotations", "categories")


def is_coco(content: object) -> bool:
    """Whether a JSON file has COCO's lists, and not those of its panoptic files."""
    if not isinstance(content, dict) or not all(isinstance(content.get(p), list) for p in PARTS):
        return False
    first = next(iter(content["annotations"]), None)
    return not (isinstance(first, dict) and "segments_info" in first)


def read_coco(documents: dict[Path, dict], root: Path, images: ImageFinder) -> Export:
    """The images of COCO's files, each of which may be a split by its name or folder.

    Categories with the same name are one, whatever their ids.

    Args:
        documents: their content by file.
        root: folder that image names are relative to.
        images: where images are looked for.

    Raises:
        UserError: an entry is no object, or two images or categories have one id.
    """
    export = Export(f"COCO JSON{_dialect(documents)} ({len(documents)} files)", [])
    has_instances = any(path.stem.startswith("instances") for path in documents)
    for path, content in documents.items():
        if has_instances and not path.stem.startswith("instances"):
            export.drop("files beside instances_*.json", path.name)
            continue
        for part in PARTS:
            if not all(isinstance(entry, dict) for entry in content[part]):
                raise UserError(f"{path}: an entry of {part} is no object with keys")
        names = _categories(export, path, content)
        for name in names.values():
            export.add_class(name)
        pictures = _pictures(export, path, content["images"], root, images)
        for entry in content["annotations"]:
            _add_shape(export, path, entry, pictures, names)
    return export


def _pictures(
    export: Export, path: Path, entries: list[dict], root: Path, images: ImageFinder
) -> dict[str, Picture]:
    """The pictures of one file by their ids."""
    splits = split_of(path.stem, path.parent.name if path.parent != root else "")
    short = path.stem.removeprefix("instances_")
    nearest = [folder / short for folder in (root / "images", root) if short]
    pictures: dict[str, Picture] = {}
    others, own = set(export.pictures), set()
    name_by_id: dict[str, str] = {}
    for entry in entries:
        name, number = str(entry.get("file_name") or ""), _key(entry.get("id"))
        if name_by_id.setdefault(number, name) != name:
            raise UserError(f"{path}: image id {number} is {name_by_id[number]} and {name}")
        file = images.find(name, *nearest, path.parent, splits=splits)
        where = f"{path.name}: {name}"
        if file is None:
            export.drop(MISSING, where)
            continue
        told = told_size(entry.get("height"), entry.get("width"))
        picture = export.add_picture(file, root, told, where)
        if picture is None:
            continue
        if picture.name in others:
            export.drop("images that another file has objects for", where)
        elif picture.name in own:
            export.drop("further entries of one image file", where)
        else:
            own.add(picture.name)
            pictures[number] = picture
            picture.splits |= splits
    return pictures


def _add_shape(
    export: Export,
    path: Path,
    entry: dict,
    pictures: dict[str, Picture],
    names: dict[str, str],
) -> None:
    where = f"{path.name}: annotation {entry.get('id')}"
    picture = pictures.get(_key(entry.get("image_id")))
    label = names.get(_key(entry.get("category_id")))
    segmentation = entry.get("segmentation")
    if picture is None:
        export.drop("objects of images that are not converted", where)
    elif label is None:
        export.drop("objects of unknown categories", f"{where} ({entry.get('category_id')})")
    elif not segmentation:
        export.drop("boxes, which tell no outline", where)
    else:
        crowd = entry.get("iscrowd") in (1, True, "1")
        if crowd and isinstance(entry.get("attributes"), dict):
            # CVAT and Datumaro mark every object that was drawn with a brush.
            export.note("masks of CVAT, which it marks as crowds, are objects", where)
            crowd = False
        picture.shapes.append(Shape(label, segmentation, where, crowd=crowd))


def _categories(export: Export, path: Path, content: dict) -> dict[str, str]:
    """Name by id. What only heads other categories, as Roboflow writes, or is the background of
    label maps, has no objects and is none."""
    names: dict[str, str] = {}
    for category in content["categories"]:
        number, name = _key(category.get("id")), str(category.get("name") or category.get("id"))
        if names.setdefault(number, name) != name:
            raise UserError(f"{path}: category id {number} is {names[number]} and {name}")
    used = {_key(entry.get("category_id")) for entry in content["annotations"]}
    pairs = [(str(c.get("supercategory")), str(c.get("name"))) for c in content["categories"]]
    own_heads = {head for head, name in pairs if head == name}
    heads = {head for head, _ in pairs} - own_heads
    found = {}
    for number, name in names.items():
        if number in used or name not in heads and is_class(name):
            found[number] = name
        elif is_class(name):
            fact = "categories that only head others, so no classes"
            export.note(fact, f"{path.name}: {name}")
    return found


def _key(number: object) -> str:
    """An id, of which files write numbers, texts and floating-point numbers side by side."""
    whole = isinstance(number, float) and number.is_integer()
    return str(int(number) if whole else number)


def _dialect(documents: dict[Path, dict]) -> str:
    told = " ".join(
        text.lower()
        for content in documents.values()
        if isinstance(content.get("info"), dict)
        for text in content["info"].values()
        if isinstance(text, str)
    )
    if "label studio" in told:
        return " of Label Studio"
    if "roboflow" in told or any(path.name == ROBOFLOW_FILE for path in documents):
        return " of Roboflow"
    if any(isinstance(entry, dict) and "attributes" in entry for content in documents.values()
           for entry in content["annotations"][:1]):  # fmt: skip
        return " of CVAT"
    return ""
