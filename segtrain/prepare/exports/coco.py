"""COCO JSON as other tools write it: CVAT, Roboflow, Label Studio and plain converters."""

from pathlib import Path

from segtrain.dataset.coco_json import is_class
from segtrain.prepare.exports.model import Export, ImageFinder, Shape, split_of

ROBOFLOW_FILE = "_annotations.coco.json"


def is_coco(content: object) -> bool:
    """Whether a JSON file has COCO's lists."""
    return isinstance(content, dict) and all(
        isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
    )


def read_coco(documents: dict[Path, dict], root: Path, images: ImageFinder) -> Export:
    """The images of COCO's files, each of which may be a split by its name or folder.

    Categories with the same name are one, whatever their ids.

    Args:
        documents: their content by file.
        root: folder that image names are relative to.
        images: where images are looked for.
    """
    export = Export(f"COCO JSON{_dialect(documents)} ({len(documents)} files)", [])
    has_instances = any(path.stem.startswith("instances") for path in documents)
    for path, content in documents.items():
        if has_instances and not path.stem.startswith("instances"):
            export.drop("files beside instances_*.json", path.name)
            continue
        splits = split_of(path.stem, path.parent.name if path.parent != root else "")
        entries = [entry for entry in content["annotations"] if isinstance(entry, dict)]
        names = _categories(content["categories"], entries)
        for name in names.values():
            export.add_class(name)
        pictures = {}
        for image in (entry for entry in content["images"] if isinstance(entry, dict)):
            name = str(image.get("file_name"))
            short = path.stem.removeprefix("instances_")
            nearest = [folder / short for folder in (root / "images", root) if short]
            file = images.find(name, *nearest, path.parent)
            if file is None or _of_another_split(file, splits, images):
                export.drop("images that are not there", f"{path.name}: {name}")
                continue
            told = image.get("height"), image.get("width")
            told = told if all(isinstance(side, int) for side in told) else None
            known = set(export.pictures) - {picture.name for picture in pictures.values()}
            picture = export.add_picture(file, root, told, f"{path.name}: {name}")
            if picture is not None and picture.name in known:
                export.drop("images that another file has objects for", f"{path.name}: {name}")
            elif picture is not None:
                pictures[str(image.get("id"))] = picture
                picture.splits |= splits
        for entry in entries:
            where = f"{path.name}: annotation {entry.get('id')}"
            picture = pictures.get(str(entry.get("image_id")))
            label = names.get(str(entry.get("category_id")))
            segmentation = entry.get("segmentation")
            if picture is None:
                export.drop("objects of images that are not there", where)
            elif label is None:
                export.drop("objects of unknown categories", where)
            elif not segmentation:
                export.drop("boxes, which tell no outline", where)
            else:
                crowd = entry.get("iscrowd") in (1, True)
                picture.shapes.append(Shape(label, segmentation, where, crowd=crowd))
    return export


def _of_another_split(file: Path, splits: set[str], images: ImageFinder) -> bool:
    """Whether the image lies in the folder of a split that is not the annotations'."""
    found = split_of(*file.relative_to(images.base_of(file)).parent.parts)
    return bool(splits and found and not splits & found)


def _categories(categories: list[dict], entries: list[dict]) -> dict[str, str]:
    """Name by id. What only heads other categories, as Roboflow writes, or is the background of
    label maps, has no objects and is none."""
    categories = [category for category in categories if isinstance(category, dict)]
    used = {str(entry.get("category_id")) for entry in entries}
    heads = {str(category.get("supercategory")) for category in categories}
    return {
        str(category.get("id")): str(category.get("name"))
        for category in categories
        if str(category.get("id")) in used
        or str(category.get("name")) not in heads - _own_heads(categories)
        and is_class(str(category.get("name")))
    }


def _own_heads(categories: list[dict]) -> set[str]:
    """Names of categories that are their own head."""
    return {str(c.get("name")) for c in categories if c.get("supercategory") == c.get("name")}


def _dialect(documents: dict[Path, dict]) -> str:
    told = str([content.get("info") for content in documents.values()]).lower()
    if "label studio" in told:
        return " of Label Studio"
    if "roboflow" in told or any(path.name == ROBOFLOW_FILE for path in documents):
        return " of Roboflow"
    if any("attributes" in entry for content in documents.values()
           for entry in content["annotations"][:1]):  # fmt: skip
        return " of CVAT"
    return ""
