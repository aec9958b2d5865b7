"""LabelMe: shapes, images inside the files, and its own conversion."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from exporting import HEIGHT, WIDTH, Converted, labelme, picture, write
from PIL import Image

from segtrain.prepare.exports.recognise import read_export

pytestmark = pytest.mark.usefixtures("own_cache")


def test_labelme(tmp_path):
    done = Converted(labelme(tmp_path / "in"), tmp_path / "out")
    assert done.export.kind.startswith("LabelMe")
    objects = dict(done.found("a.jpg")[:1]), done.found("a.jpg")[1:]
    assert objects[0] == {"bolt": 200}  # both shapes of group 3
    assert objects[1][1] == ("nut", 24)
    assert abs(objects[1][0][1] - 95) < 10  # the circle
    mask = done.masks["a.jpg"]
    names = done.labels.names
    assert (mask[2:6, 2:6] == 0).all()
    assert mask[8, 8] == names.index("bolt")
    assert (mask[:10, 70:] == 255).all()
    assert (mask[40:44, 60:66] == names.index("nut")).all()
    dropped = {reason: len(places) for reason, places in done.export.dropped.items()}
    assert dropped == {
        "shapes of type line, which cover no area": 1,
        "shapes without a label": 1,
        "shapes that cannot be read": 1,
        "shapes without a pixel in their image": 1,
    }


def test_labelme_with_the_image_inside(tmp_path):
    root = labelme(tmp_path / "in", imagePath="..\\gone\\a.jpg")
    content = json.loads((root / "a.json").read_text())
    content["imageData"] = base64.b64encode((root / "a.jpg").read_bytes()).decode()
    del content["imageHeight"]
    (root / "a.jpg").unlink()
    write(root / "a.json", content)
    assert Converted(root, tmp_path / "out").found("a.jpg")[0] == ("bolt", 200)


def test_labelme_splits_and_sizes(tmp_path):
    root = tmp_path / "in"
    for split in ("train", "valid"):
        labelme(root / split)
    done = Converted(root, tmp_path / "out")
    assert done.splits == {"train": ["train/a.jpg"], "val": ["valid/a.jpg"]}
    picture(root / "valid/a.jpg", (HEIGHT, WIDTH))
    other = Converted(root, tmp_path / "other")
    assert other.splits == {"train": ["train/a.jpg"], "val": ["train/a.jpg"]}
    places = other.export.dropped["images of another size than the export says"]
    assert places == ["valid/a.json (60x80, not 80x60)"]


def raw_map(done, name, classes):
    """The label map in the numbers of another list of classes."""
    numbers = [classes.index("_background_" if n == "background" else n) for n in done.labels.names]
    return np.array([*numbers, *[255] * (256 - len(numbers))], np.uint8)[done.masks[name]]


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("semantic", "semantic_expected"), ("instance", "instance_expected/SegmentationClass")],
)
def test_label_maps_are_labelmes_own(tmp_path, annotation_exports, folder, expected):
    base = annotation_exports / "labelme"
    done = Converted(base / folder, tmp_path / "out", base / "semantic")
    classes = (base / "semantic_expected/class_names.txt").read_text().split("\n")
    files = sorted((base / expected).glob("*.png"))
    assert len(files) == len(done.masks) == 3
    for file in files:
        name = next(name for name in done.masks if Path(name).stem == file.stem)
        agreement = raw_map(done, name, classes) == np.asarray(Image.open(file))
        assert agreement.mean() > 0.9999


@pytest.mark.parametrize("folder", ["labelme/instance", "coco_with_category_0"])
def test_instances_are_labelmes_own(tmp_path, annotation_exports, folder):
    base = annotation_exports / "labelme"
    done = Converted(annotation_exports / folder, tmp_path / "out", base / "semantic")
    for name, target in done.objects.items():
        file = base / "instance_expected/SegmentationObject" / f"{Path(name).stem}.png"
        numbers = np.asarray(Image.open(file))
        seen = [numbers == number for number in np.unique(numbers) if number not in (0, 255)]
        assert len(seen) == len(target["masks"])
        overlap = [[(a & b).sum() / (a | b).sum() for b in target["masks"]] for a in seen]
        assert sorted(np.argmax(overlap, 1)) == list(range(len(seen)))
        assert np.max(overlap, 1).min() > 0.9


def one_shape(root, **shape):
    return labelme(root, shapes=[{"label": "bolt", **shape}])


CORNERS = [[10, 10], [29, 10], [29, 19], [10, 19]]


@pytest.mark.parametrize(
    "shape",
    [
        {"shape_type": "rectangle", "points": [[10, 10], [29, 19]]},
        {"shape_type": "rectangle", "points": [[29, 19], [10, 10]]},
        {"shape_type": "rectangle", "points": [[29, 10], [10, 19]]},
        {"shape_type": "rectangle", "points": CORNERS},
        {"shape_type": "rectangle", "points": [*CORNERS[::-1], CORNERS[-1]]},
        {"shape_type": "polygon", "points": CORNERS},
        {"shape_type": "rotation", "points": CORNERS, "direction": 0.0},
        {"shape_type": "oriented_rectangle", "points": CORNERS},
        {"shape_type": None, "points": CORNERS, "group_id": 0},
        {"points": CORNERS},
    ],
)
def test_rectangles_in_every_spelling(tmp_path, shape):
    done = Converted(one_shape(tmp_path / "in", **shape), tmp_path / "out")
    assert done.found("a.jpg") == [("bolt", 200)]
    assert (done.masks["a.jpg"][10:20, 10:30] == 1).all()


@pytest.mark.parametrize("corners", [[[60, 40], [65, 43]], [[60.9, 40.9], [65.9, 43.9]]])
def test_masks_lie_where_labelme_puts_them(tmp_path, corners):
    root = labelme(tmp_path / "in")
    content = json.loads((root / "a.json").read_text())
    mask = next(shape for shape in content["shapes"] if shape["shape_type"] == "mask")
    write(root / "a.json", {**content, "shapes": [{**mask, "points": corners}]})
    done = Converted(root, tmp_path / "out")
    assert (done.masks["a.jpg"][40:44, 60:66] == 1).all()
    assert done.found("a.jpg") == [("nut", 24)]
    write(root / "a.json", {**content, "shapes": [{**mask, "points": [[0, 0], [9, 9]]}]})
    export = read_export(root, None)
    assert export.dropped == {"shapes that cannot be read": ["a.json shape 1"]}


def test_classes_are_those_of_areas(tmp_path):
    done = Converted(labelme(tmp_path / "in"), tmp_path / "out")
    assert done.export.classes == ["__ignore__", "_background_", "bolt", "nut"]
    write(tmp_path / "in/labels.txt", "\ufeff__ignore__\r\n_background_\r\nnut\r\nwasher\r\n")
    done = Converted(tmp_path / "in", tmp_path / "other")
    assert done.classes == ("nut", "washer", "bolt")


@pytest.mark.parametrize("change", [{"imagePath": "renamed.jpg"}, {"imagePath": None}])
def test_an_image_beside_its_file(tmp_path, change):
    root = labelme(tmp_path / "in", **change)
    assert Converted(root, tmp_path / "out").found("a.jpg")[0] == ("bolt", 200)


def test_images_of_windows_in_another_folder(tmp_path):
    root = tmp_path / "in"
    labelme(root / "json", imagePath="..\\pictures\\a.jpg")
    (root / "pictures").mkdir()
    (root / "json/a.jpg").rename(root / "pictures/a.jpg")
    assert Converted(root, tmp_path / "out").found("pictures/a.jpg")[0] == ("bolt", 200)


def test_two_images_inside_files_keep_apart(tmp_path):
    root = tmp_path / "in"
    for name in ("a", "b"):
        labelme(root, name)
        content = json.loads((root / f"{name}.json").read_text())
        content["imageData"] = base64.b64encode((root / f"{name}.jpg").read_bytes()).decode()
        write(root / f"{name}.json", {**content, "imagePath": f"x/{name}.exe"})
        (root / f"{name}.jpg").unlink()
    assert sorted(Converted(root, tmp_path / "out").masks) == ["a.png", "b.png"]
