"""Label Studio's own JSON: shapes in percent, brush strokes, and which annotation is taken."""

import json

import numpy as np
import pytest
from exporting import HEIGHT, WIDTH, Converted, label_studio, stroke_code, write

from segtrain.prepare.exports.recognise import read_export

pytestmark = pytest.mark.usefixtures("own_cache")


def document(root):
    return json.loads((root / "project.json").read_text())


def test_label_studio(tmp_path):
    done = Converted(label_studio(tmp_path / "in"), tmp_path / "out")
    assert done.export.kind == "Label Studio JSON (1 files)"
    found = done.found("a.jpg")
    assert [found[0], found[1], found[3]] == [("bolt", 600), ("nut", 300), ("bolt", 24)]
    assert abs(found[2][1] - np.pi * 4 * 6) < 4
    mask = done.masks["a.jpg"]
    assert (mask[30:, 20:40] == 1).all()
    assert (mask[:15, :20] == 2).all()
    assert (mask[40:44, 60:66] == 1).all()
    dropped = {reason: len(places) for reason, places in done.export.dropped.items()}
    assert dropped == {
        "results that cover no area": 1,
        "shapes without a label": 1,
        "shapes that cannot be read": 1,
        "tasks that nobody annotated": 1,
    }


def test_the_smaller_json_says_the_same(tmp_path):
    root = label_studio(tmp_path / "in")
    task = document(root)[0]
    results = task["annotations"][0]["result"]
    flat = [{**result, **result.pop("value")} for result in results]
    write(root / "project.json", [{"id": 7, "image": task["data"]["image"], "tag": flat}])
    done = Converted(root, tmp_path / "out")
    assert [name for name, _ in done.found("a.jpg")] == ["bolt", "nut", "nut", "bolt"]


@pytest.mark.parametrize("seed", range(3))
def test_brush_strokes_to_the_pixel(tmp_path, seed):
    mask = np.random.default_rng(seed).random((HEIGHT, WIDTH)) < 0.4
    root = label_studio(tmp_path / "in")
    tasks = document(root)
    result = tasks[0]["annotations"][0]["result"]
    result[3]["value"]["rle"] = stroke_code(mask)
    tasks[0]["annotations"][0]["result"] = [result[3]]
    write(root / "project.json", tasks)
    assert ((Converted(root, tmp_path / "out").masks["a.jpg"] == 1) == mask).all()
    result[3]["value"]["rle"] = stroke_code(mask)[:-9]
    write(root / "project.json", tasks)
    assert read_export(root, None).dropped["shapes that cannot be read"] == [
        "project.json: task 7 result 1 (a code that ends early)"
    ]


def test_rectangles_turn_around_their_corner(tmp_path):
    root = label_studio(tmp_path / "in")
    tasks = document(root)
    result = tasks[0]["annotations"][0]["result"][1]
    value = {"x": 50, "y": 0, "width": 25, "height": 50, "rotation": 90, "rectanglelabels": ["nut"]}
    tasks[0]["annotations"][0]["result"] = [{**result, "value": value}]
    write(root / "project.json", tasks)
    mask = Converted(root, tmp_path / "out").masks["a.jpg"]
    assert (mask[0:20, 10:40] == 1).all()
    assert mask.sum() == 600


def test_the_truth_is_taken_of_several_annotations(tmp_path):
    root = label_studio(tmp_path / "in")
    tasks = document(root)
    results = tasks[0]["annotations"][0]["result"]
    tasks[0]["annotations"] = [
        {"was_cancelled": True, "result": results},
        {"result": results[1:2]},
        {"result": results[:1], "ground_truth": True},
    ]
    write(root / "project.json", tasks)
    done = Converted(root, tmp_path / "out")
    assert done.found("a.jpg") == [("bolt", 600)]
    assert done.export.noted["tasks with several annotations, of which one is taken"] == [
        "project.json: task 7"
    ]


def test_shapes_and_labels_of_different_controls(tmp_path):
    root = label_studio(tmp_path / "in")
    tasks = document(root)
    result = tasks[0]["annotations"][0]["result"][0]
    points = result["value"]["points"]
    tasks[0]["annotations"][0]["result"] = [
        {**result, "type": "polygon", "value": {"points": points}},
        {**result, "type": "labels", "value": {"points": points, "labels": ["bolt", "nut"]}},
        {**result, "image_rotation": 90},
    ]
    write(root / "project.json", tasks)
    done = Converted(root, tmp_path / "out")
    assert done.found("a.jpg") == [("bolt", 600), ("nut", 600)]
    assert "turned in Label Studio" in done.export.dropped["shapes that cannot be read"][0]
