"""Label Studio's own JSON, with all it knows of a task or the smaller one: polygons, rectangles,
ellipses and brush strokes, in percent of the image."""

from pathlib import Path

import numpy as np

from segtrain.prepare.exports.finder import ImageFinder
from segtrain.prepare.exports.model import (
    MISSING,
    Export,
    Picture,
    Segmentation,
    Shape,
    ellipse,
    finite,
    placed,
    rectangle,
    told_size,
)

ANNOTATIONS = ("annotations", "completions")  # the latter of old versions


def is_label_studio(content: object) -> bool:
    """Whether a JSON file is a list of Label Studio's tasks."""
    if not isinstance(content, list) or not all(isinstance(task, dict) for task in content):
        return False
    return any(
        isinstance(task.get("data"), dict) and any(key in task for key in ANNOTATIONS)
        or _flat_results(task)
        for task in content
    )  # fmt: skip


def read_label_studio(documents: dict[Path, list], root: Path, images: ImageFinder) -> Export:
    """The images of Label Studio's tasks; tasks that nobody annotated are left out.

    Args:
        documents: their content by file.
        root: folder that image names are relative to.
        images: where images are looked for; the export has none beside it.
    """
    export = Export(f"Label Studio JSON ({len(documents)} files)", [])
    for path, tasks in documents.items():
        for number, task in enumerate(tasks, 1):
            where = f"{path.name}: task {task.get('id', number)}"
            results = _results(export, task, where)
            if results is None:
                export.drop("tasks that nobody annotated", where)
                continue
            picture = _picture(export, task, results, where, root, images)
            if picture is not None:
                labelled = {str(result.get("id")) for result in results if _labels(result)}
                for place, result in enumerate(results, 1):
                    # Where shapes and labels are controls of their own, both have a result.
                    if _labels(result) or str(result.get("id")) not in labelled:
                        _add_shape(export, picture, result, f"{where} result {place}")
    return export


def _results(export: Export, task: dict, where: str) -> list[dict] | None:
    """Of the annotation that is marked as the truth, else of the first that was not skipped."""
    found = next((task[key] for key in ANNOTATIONS if isinstance(task.get(key), list)), None)
    if found is None:
        return _flat_results(task) or None
    made = [one for one in found if isinstance(one, dict) and not one.get("was_cancelled")]
    made.sort(key=lambda one: not one.get("ground_truth"))
    if made[1:]:
        export.note("tasks with several annotations, of which one is taken", where)
    results = made[0].get("result") if made else None
    if not isinstance(results, list):
        return None
    return [result for result in results if isinstance(result, dict)]


def _flat_results(task: dict) -> list[dict]:
    """Those of the smaller JSON, whose values stand in the results themselves."""
    lists = (value for value in task.values() if isinstance(value, list))
    return [
        entry
        for entries in lists
        for entry in entries
        if isinstance(entry, dict) and "original_width" in entry
    ]


def _picture(
    export: Export, task: dict, results: list[dict], where: str, root: Path, images: ImageFinder
) -> Picture | None:
    data = task["data"] if isinstance(task.get("data"), dict) else task
    names = [data.get("image"), *data.values()]
    names = [name for name in names if isinstance(name, str) and ("." in name or "/" in name)]
    file = next((file for name in names if (file := images.find(name)) is not None), None)
    if file is None:
        export.drop(MISSING, f"{where} ({names[0] if names else 'names none'})")
        return None
    told = next((size for result in results if (size := _told(result))), None)
    known = len(export.pictures)
    picture = export.add_picture(file, root, told, where)
    if picture is not None and len(export.pictures) == known:
        export.drop("further tasks of one image", where)
        return None
    return picture


def _told(result: dict) -> tuple[int, int] | None:
    return told_size(result.get("original_height"), result.get("original_width"))


def _add_shape(export: Export, picture: Picture, result: dict, where: str) -> None:
    try:
        segmentation = _segmentation(_value(result), picture.size)
        if result.get("image_rotation"):
            raise ValueError("its image was turned in Label Studio")
    except (ValueError, TypeError, OverflowError) as error:
        export.drop("shapes that cannot be read", f"{where} ({error})")
        return
    if segmentation is None:
        export.drop("results that cover no area", where)
    elif not _labels(result):
        export.drop("shapes without a label", where)
    else:
        for label in _labels(result):
            export.add_class(label)
            picture.shapes.append(Shape(label, segmentation, where))


def _value(result: dict) -> dict:
    return result["value"] if isinstance(result.get("value"), dict) else result


def _labels(result: dict) -> list[str]:
    """Those of a result, whatever its control: `polygonlabels`, `brushlabels`, `labels`, ..."""
    lists = (v for key, v in _value(result).items() if key.endswith("labels"))
    return [name for names in lists if isinstance(names, list) for name in names
            if isinstance(name, str) and name]  # fmt: skip


def _segmentation(value: dict, size: tuple[int, int]) -> Segmentation | None:
    """None for what is no area.

    Raises:
        ValueError: a coordinate is missing or none, or the code of brush strokes is broken.
    """
    height, width = size[0] / 100, size[1] / 100  # of a percent
    if "rle" in value:
        return placed(_painted(value["rle"], size), 0, 0, size)
    if "points" in value:
        points = [finite(point) for point in value["points"]]
        return [[v * side for x, y in points for v, side in ((x, width), (y, height))]]
    turn = finite([value.get("rotation") or 0])[0]
    if "radiusX" in value:
        x, y, across, down = finite(value.get(key) for key in ("x", "y", "radiusX", "radiusY"))
        return ellipse(x * width, y * height, across * width, down * height, turn)
    if "width" in value and "height" in value:
        x, y, across, down = finite(value.get(key) for key in ("x", "y", "width", "height"))
        left, top = x * width, y * height
        corner = left + across * width, top + down * height
        return rectangle(left, top, *corner, turn, pivot=(left, top))
    return None


def _painted(code: list[int], size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool of the code of brush strokes, which is rle-pack's of their RGBA pixels.

    A header of 32 bits for the number of values, 5 for the bits of each and 4 for each of four
    widths of run lengths; then runs: whether the value is repeated, which width, the length, and
    the value or values. What is not transparent is painted.

    Raises:
        ValueError: it is broken, or not of an image of this size.
    """
    bits = "".join(f"{byte:08b}" for byte in bytes(code))
    place = 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        if place > len(bits):
            raise ValueError("a code that ends early")
        return int(bits[place - count : place], 2)

    total, word = take(32), take(5) + 1
    lengths = [take(4) + 1 for _ in range(4)]
    if total != size[0] * size[1] * 4:
        raise ValueError(f"strokes on an image of {total // 4} pixels")
    values = np.zeros(total, bool)
    start = 0
    while start < total:
        repeated = take(1)
        end = start + 1 + take(lengths[take(2)])
        if repeated:
            values[start:end] = take(word) > 0
        else:
            values[start:end] = [take(word) > 0 for _ in range(start, min(end, total))]
        start = end
    return values.reshape(*size, 4)[..., 3]
