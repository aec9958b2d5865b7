"""Exports of annotation tools: recognised, converted, and read as instances and as label maps."""

import base64
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.dataset.coco_json import (
    coco_json,
    coco_json_instances,
    instance_labels,
    painted_labels,
)
from segtrain.errors import UserError
from segtrain.prepare.exports.recognise import NotAnExportError, read_export
from segtrain.prepare.exports.write import write_export

HEIGHT, WIDTH = 60, 80


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))


def picture(path, size=(WIDTH, HEIGHT)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 60)).save(path)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))


class Converted:
    """What the data sets read of a converted export."""

    def __init__(self, source, target, images=None):
        self.export = read_export(Path(source), images)
        write_export(self.export, target, 0.5, 1)
        root = str(target)
        self.classes = instance_labels(root, None, None).names
        self.labels = painted_labels(root, None, None)
        self.masks, self.objects, self.splits = {}, {}, {}
        for path in sorted(target.glob("*.json")):
            arguments = (None, None, 0.5, 1)
            maps = coco_json(root, path.stem, self.labels, *arguments)
            found = coco_json_instances(
                root, path.stem, instance_labels(root, None, None), *arguments, []
            )
            names = [maps.name(i).removeprefix("images/") for i in range(len(maps))]
            self.splits[path.stem] = names
            for i, name in enumerate(names):
                self.masks[name] = maps.read(i)[1]
                self.objects[name] = found.read(i)[1]

    def found(self, name):
        """Class name and pixels of each object of an image."""
        target = self.objects[name]
        return [(self.classes[label], int(mask.sum()))
                for label, mask in zip(target["labels"], target["masks"], strict=True)]  # fmt: skip


def yolo(root, yaml="path: .\ntrain: images/train\nval: images/val\nnames: {0: bolt, 1: nut}\n"):
    for split in ("train", "val"):
        picture(root / f"images/{split}/a.jpg")
    write(root / "data.yaml", yaml)
    write(root / "labels/train/a.txt", "0 0.25 0.5 0.5 0.5 0.5 1 0.25 1\n\n1 0.5 0 1 0 1 0.25\n")
    return root


def test_yolo(tmp_path):
    done = Converted(yolo(tmp_path / "in"), tmp_path / "out")
    assert done.export.kind == "YOLO segmentation"
    assert done.splits == {"train": ["train/a.jpg"], "val": ["val/a.jpg"]}
    assert done.found("train/a.jpg")[0] == ("bolt", 600)
    assert done.found("train/a.jpg")[1][0] == "nut"
    assert done.found("val/a.jpg") == []
    mask = done.masks["train/a.jpg"]
    assert (mask[30:, 20:40] == 1).all()
    assert set(np.unique(mask)) == {0, 1, 2}


@pytest.mark.parametrize(
    "yaml",
    [
        "train: ../images/train\nval: ../images/val\nnc: 2\nnames: ['bolt', 'nut']\n",
        "path: ../elsewhere\ntrain: [images/train]\nval: images/val\nnames:\n  0: bolt\n  1: nut\n",
        "path: .\ntrain: train.txt\nval: images/val\ntest:\nnames: [bolt, nut]\n",
        "path: .\ntrain: moved.txt\nval: images/val\nnames: {0: bolt, 1: nut}\n",
    ],
)
def test_yolo_in_other_spellings(tmp_path, yaml):
    root = yolo(tmp_path / "in", yaml)
    write(root / "train.txt", "./images/train/a.jpg\n")
    write(root / "moved.txt", "data/images/train/a.jpg\n")
    done = Converted(root, tmp_path / "out")
    assert done.classes == ("bolt", "nut")
    assert [name for name, _ in done.found("train/a.jpg")] == ["bolt", "nut"]


def test_yolo_of_label_studio(tmp_path):
    root = yolo(tmp_path / "in")
    (root / "data.yaml").unlink()
    write(root / "classes.txt", "bolt\nnut\n")
    done = Converted(root, tmp_path / "out")
    assert len(done.found("train/a.jpg")) == 2
    assert {split: len(names) for split, names in done.splits.items()} == {"train": 1, "val": 1}


def test_yolo_says_what_it_drops(tmp_path):
    root = yolo(tmp_path / "in")
    lines = ["0 0.5 0.5 0.2 0.2", "7 0 0 1 0 1 1", "0 0 0 1 0 1", "0 0 0 nan 0 1 1", "x 1 2",
             "0 10 10 40 10 40 40", "1 0.2 0.2 0.2 0.2 0.2 0.2", "1 0 0 1 0 1 1"]  # fmt: skip
    write(root / "labels/train/a.txt", "\n".join(lines))
    done = Converted(root, tmp_path / "out")
    assert [name for name, _ in done.found("train/a.jpg")] == ["nut"]
    places = [place for places in done.export.dropped.values() for place in places]
    for line in range(1, 8):
        assert any(f"a.txt line {line}" in place for place in places), line
    assert len(places) == 7


def labelme(root, name="a", **changes):
    picture(root / f"{name}.jpg")
    pixels = BytesIO()
    Image.fromarray(np.full((4, 6), 255, np.uint8)).save(pixels, "PNG")
    square = [[2, 2], [11, 2], [11, 11], [2, 11]]
    shapes = [
        {"label": "bolt", "points": square, "shape_type": "polygon", "group_id": 3},
        {"label": "bolt", "points": [[2, 20], [11, 29]], "shape_type": "rectangle", "group_id": 3},
        {"label": "nut", "points": [[40, 30], [45, 30]], "shape_type": "circle"},
        {"label": "nut", "points": [[60, 40], [65, 43]], "shape_type": "mask",
         "mask": base64.b64encode(pixels.getvalue()).decode()},
        {"label": "__ignore__", "points": [[70, 0], [79, 9]], "shape_type": "rectangle"},
        {"label": "_background_", "points": [[2, 2], [5, 5]], "shape_type": "rectangle"},
        {"label": "edge", "points": [[1, 1], [9, 9]], "shape_type": "line"},
        {"label": "", "points": square, "shape_type": "polygon"},
        {"label": "bolt", "points": [[0, 0], [float("nan"), 5], [5, 5]]},
        {"label": "bolt", "points": [[200, 200], [210, 200], [210, 210]]},
    ]  # fmt: skip
    content = {"version": "5.4.1", "imagePath": f"{name}.jpg", "imageData": None,
               "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": shapes}  # fmt: skip
    write(root / f"{name}.json", {**content, **changes})
    return root


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


CVAT = """<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task>
<labels><label><name>bolt</name></label><label><name>nut</name></label></labels></task></meta>{}
</annotations>"""
CVAT_SHAPES = """
<polygon label="bolt" points="10,10;20,10;20,20;10,20" z_order="1" group_id="4"/>
<box label="bolt" xtl="40" ytl="10" xbr="50" ybr="20" z_order="1" group_id="4"/>
<box label="nut" xtl="0" ytl="0" xbr="30" ybr="30" z_order="0"/>
<mask label="nut" rle="2, 3, 5" left="60" top="20" width="5" height="2" z_order="0"/>
<ellipse label="nut" cx="60" cy="45" rx="10" ry="5" rotation="90" z_order="0"/>
<box label="nut" xtl="1" ytl="40" xbr="21" ybr="44" rotation="90" z_order="0"/>
<polyline label="nut" points="1,2;3,4"/><tag label="nut"/>
<mask label="nut" rle="2, 3" left="60" top="20" width="5" height="2"/>
<polygon label="" points="1,2;3,4;6,5"/>"""


def cvat(root, shapes=CVAT_SHAPES, **attributes):
    picture(root / "images/sub/a.jpg")
    told = {"name": "sub/a.jpg", "width": WIDTH, "height": HEIGHT, **attributes}
    text = " ".join(f'{key}="{value}"' for key, value in told.items())
    write(root / "annotations.xml", CVAT.format(f"<image id='0' {text}>{shapes}</image>"))
    return root


def test_cvat(tmp_path):
    done = Converted(cvat(tmp_path / "in"), tmp_path / "out")
    assert done.export.kind == "CVAT 1.1 for images"
    found = done.found("sub/a.jpg")
    assert ("bolt", 200) in found  # both shapes of group 4
    assert ("nut", 900) in found
    assert ("nut", 3) in found
    assert ("nut", 80) in found
    mask = done.masks["sub/a.jpg"]
    assert (mask[10:20, 10:20] == 1).all()  # over the box, which lies in a lower layer
    assert mask[5, 5] == 2
    assert mask[20, 62:65].tolist() == [2, 2, 2]
    assert mask[53, 60] == 2  # the ellipse stands upright
    assert mask[45, 68] == 0
    assert (mask[32:52, 9:13] == 2).all()  # so does the box
    dropped = {reason: len(places) for reason, places in done.export.dropped.items()}
    assert dropped == {
        "annotations of type polyline, which cover no area": 1,
        "annotations of type tag, which cover no area": 1,
        "shapes that cannot be read": 1,
        "shapes without a label": 1,
    }


def test_cvat_keeps_subsets_with_one_file_name_apart(tmp_path):
    root, entries = tmp_path / "in", []
    for number, subset in enumerate(("Train", "Validation", "Test")):
        picture(root / f"images/{subset}/a.jpg")
        box = f'<box label="bolt" xtl="0" ytl="0" xbr="{10 + number}" ybr="10"/>'
        entries.append(f'<image id="0" name="a.jpg" subset="{subset}" width="{WIDTH}" '
                       f'height="{HEIGHT}">{box}</image>')  # fmt: skip
    write(root / "annotations.xml", CVAT.format("".join(entries)))
    done = Converted(root, tmp_path / "out")
    assert done.splits == {"test": ["Test/a.jpg"], "train": ["Train/a.jpg"],
                           "val": ["Validation/a.jpg"]}  # fmt: skip
    assert done.found("Validation/a.jpg") == [("bolt", 110)]
    (root / "images/Test/a.jpg").unlink()
    other = Converted(root, tmp_path / "other")
    assert other.export.dropped == {"images that are not there": ["annotations.xml: Test/a.jpg"]}
    assert other.found("Train/a.jpg") == [("bolt", 100)]


def test_cvat_for_video(tmp_path):
    root = tmp_path / "in"
    for frame in range(6):
        picture(root / f"images/frame_{frame:06}.png")
    track = """<track id="0" label="bolt">
    <box frame="0" outside="0" keyframe="1" xtl="0" ytl="0" xbr="10" ybr="10"/>
    <box frame="4" outside="1" keyframe="1" xtl="40" ytl="0" xbr="50" ybr="10"/></track>"""
    write(root / "annotations.xml", CVAT.format(track))
    done = Converted(root, tmp_path / "out")
    assert done.export.kind == "CVAT 1.1 for video"
    assert len(done.masks) == 6
    for frame in range(6):
        found = done.found(f"frame_{frame:06}.png")
        assert found == ([("bolt", 100)] if frame < 4 else [])
    assert done.objects["frame_000001.png"]["boxes"].tolist() == [[10, 0, 20, 10]]


def test_broken_tracks_are_told(tmp_path):
    picture(tmp_path / "in/frame_000000.png")
    box = '<box frame="{}" outside="0" xtl="{}" ytl="0" xbr="10" ybr="10"/>'
    tracks = "".join(
        f'<track id="{number}" label="bolt">{"".join(boxes)}</track>'
        for number, boxes in enumerate((
            [], [box.format("z", 0)], [box.format(0, "q")],
            [box.format(0, 0), box.format(3_000_000_000, "q")],
        ))
    )  # fmt: skip
    write(tmp_path / "in/annotations.xml", CVAT.format(tracks))
    done = Converted(tmp_path / "in", tmp_path / "out")
    assert done.found("frame_000000.png") == [("bolt", 100)]
    assert done.export.dropped["shapes that cannot be read"] == ["annotations.xml: track 2 frame 0"]


@pytest.mark.parametrize(
    "declaration",
    ['<!DOCTYPE a [<!ENTITY e "x">]>', '<!DOCTYPE annotations SYSTEM "file:///etc/hostname">'],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xml_that_declares_entities_is_refused(tmp_path, declaration, encoding):
    root = cvat(tmp_path / "in")
    path = root / "annotations.xml"
    text = path.read_text().replace('encoding="utf-8"', f'encoding="{encoding}"')
    path.write_bytes(text.replace("?><annotations", f"?>{declaration}<annotations")
                     .encode(encoding))  # fmt: skip
    with pytest.raises(UserError, match=r"annotations\.xml: declares a document type"):
        read_export(root, None)


def coco(root, name="train/_annotations.coco.json", first=0, **image):
    picture(root / name.replace(name.split("/")[-1], "a.jpg"))
    square = [[5, 5, 15, 5, 15, 15, 5, 15]]
    write(root / name, {
        "images": [{"id": 0, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT, **image}],
        "annotations": [
            {"id": 0, "image_id": 0, "category_id": first + 1, "segmentation": square},
            {"id": 1, "image_id": 0, "category_id": first + 2, "segmentation": [],
             "bbox": [1, 1, 5, 5]},
            {"id": 2, "image_id": 0, "category_id": 99, "segmentation": square},
            {"id": 3, "image_id": 0, "category_id": first + 2, "segmentation": square[0][:5]},
            {"id": 4, "image_id": 0, "category_id": first + 1, "iscrowd": 1,
             "segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, 60, HEIGHT * WIDTH - 60]}},
        ],
        "categories": [{"id": first, "name": "hardware", "supercategory": "none"},
                       {"id": first + 1, "name": "bolt", "supercategory": "hardware"},
                       {"id": first + 2, "name": "nut", "supercategory": "hardware"}],
    })  # fmt: skip
    return root


def test_coco_of_roboflow(tmp_path):
    root = tmp_path / "in"
    for number, split in enumerate(("train", "valid", "test")):
        coco(root, f"{split}/_annotations.coco.json", first=3 * number)
    done = Converted(root, tmp_path / "out")
    assert done.export.kind == "COCO JSON of Roboflow (3 files)"
    assert done.classes == ("bolt", "nut")
    assert done.splits == {"test": ["test/a.jpg"], "train": ["train/a.jpg"], "val": ["valid/a.jpg"]}
    for name in ("train/a.jpg", "valid/a.jpg", "test/a.jpg"):
        assert done.found(name) == [("bolt", 100), ("bolt", 60)]
        assert done.objects[name]["crowd"].tolist() == [False, True]
    dropped = {reason: len(places) for reason, places in done.export.dropped.items()}
    assert dropped == {
        "boxes, which tell no outline": 3,
        "objects of unknown categories": 3,
        "shapes that cannot be read": 3,
    }


def test_coco_with_one_file_name_in_several_splits(tmp_path):
    root = tmp_path / "in"
    for split in ("train", "val"):
        coco(root, f"annotations/instances_{split}.json")
        picture(root / f"images/{split}/a.jpg")
    coco(root, "annotations/person_keypoints_train.json")
    (root / "annotations/a.jpg").unlink()
    done = Converted(root, tmp_path / "out")
    assert done.splits == {"train": ["train/a.jpg"], "val": ["val/a.jpg"]}
    assert done.found("val/a.jpg") == [("bolt", 100), ("bolt", 60)]
    assert done.export.dropped["files beside instances_*.json"] == ["person_keypoints_train.json"]
    (root / "images/train/a.jpg").unlink()
    other = Converted(root, tmp_path / "other")
    assert list(other.masks) == ["val/a.jpg"]
    assert other.export.dropped["images that are not there"] == ["instances_train.json: a.jpg"]


def test_images_that_two_files_annotate_are_taken_once(tmp_path):
    root = tmp_path / "in"
    for name in ("first", "second"):
        coco(root, f"{name}.json")
    done = Converted(root, tmp_path / "out")
    assert done.found("a.jpg") == [("bolt", 100), ("bolt", 60)]
    assert done.export.dropped["images that another file has objects for"] == ["second.json: a.jpg"]


def test_coco_with_images_elsewhere(tmp_path):
    name = "annotations/instances_default.json"
    root = coco(tmp_path / "in", name, file_name="deep\\down\\a.jpg")
    (root / "annotations/a.jpg").unlink()
    with pytest.raises(UserError, match="no object is left to convert\n.*not there"):
        Converted(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    picture(tmp_path / "photos/deep/down/a.jpg")
    picture(tmp_path / "photos/deep/other/a.jpg")
    done = Converted(root, tmp_path / "out", tmp_path / "photos")
    assert list(done.masks) == ["down/a.jpg"]


def test_sizes_that_no_image_has_are_not_drawn(tmp_path):
    labelme(tmp_path / "labelme", imageHeight=99_999, imageWidth=99_999)
    cvat(tmp_path / "cvat", width=99_999, height=99_999)
    coco(tmp_path / "coco", width=99_999, height=99_999)
    for tool in ("labelme", "cvat", "coco"):
        with pytest.raises(UserError, match="images of another size .*80x60, not 99999x99999"):
            Converted(tmp_path / tool, tmp_path / f"out-{tool}")


def test_what_is_no_export_is_refused(tmp_path):
    picture(tmp_path / "in/a.jpg")
    for path, message in ((tmp_path / "in", "not an export that can be read; expected YOLO"),
                          (tmp_path / "gone", "no such file or folder"),
                          (tmp_path / "in/a.jpg", "not an export")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            read_export(path, None)
    with pytest.raises(NotAnExportError):
        read_export(tmp_path / "in", None)
    write(tmp_path / "in/x.json", "{")
    with pytest.raises(UserError, match=r"x\.json: not readable JSON"):
        read_export(tmp_path / "in", None)
    (tmp_path / "in/x.json").unlink()
    labelme(cvat(tmp_path / "in"))
    with pytest.raises(UserError, match="several exports"):
        read_export(tmp_path / "in", None)


def test_command(tmp_path, segtrain):
    root = yolo(tmp_path / "in (1), a=b")
    target = tmp_path / "out größe"
    code, out, err = segtrain("prepare", f"from={root}", f"to={target}")
    assert code == 0, err
    assert "recognised  YOLO segmentation: 2 images, classes bolt, nut" in out
    assert "train.json 1, val.json 1" in out
    assert (target / "images/train/a.jpg").is_file()
    code, _, err = segtrain("prepare", f"from={root}", f"to={target}")
    assert (code, "is not empty; give to=<another folder>" in err) == (2, True)
    code, _, err = segtrain("prepare", f"from={root}")
    assert (code, "belong together" in err) == (2, True)


@pytest.fixture
def exports(real_data):
    folder = real_data / "annotation_exports"
    if not folder.is_dir():
        pytest.skip("SEGTRAIN_DATA holds no annotation_exports")
    return folder


def raw_map(done, name, classes):
    """The label map in the numbers of another list of classes."""
    numbers = [classes.index("_background_" if n == "background" else n) for n in done.labels.names]
    return np.array([*numbers, *[255] * (256 - len(numbers))], np.uint8)[done.masks[name]]


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("semantic", "semantic_expected"), ("instance", "instance_expected/SegmentationClass")],
)
def test_label_maps_are_labelmes_own(tmp_path, exports, folder, expected):
    base = exports / "labelme"
    done = Converted(base / folder, tmp_path / "out", base / "semantic")
    classes = (base / "semantic_expected/class_names.txt").read_text().split("\n")
    files = sorted((base / expected).glob("*.png"))
    assert len(files) == len(done.masks) == 3
    for file in files:
        name = next(name for name in done.masks if Path(name).stem == file.stem)
        agreement = raw_map(done, name, classes) == np.asarray(Image.open(file))
        assert agreement.mean() > 0.9999


@pytest.mark.parametrize("folder", ["labelme/instance", "coco_with_category_0"])
def test_instances_are_labelmes_own(tmp_path, exports, folder):
    base = exports / "labelme"
    done = Converted(exports / folder, tmp_path / "out", base / "semantic")
    for name, target in done.objects.items():
        file = base / "instance_expected/SegmentationObject" / f"{Path(name).stem}.png"
        numbers = np.asarray(Image.open(file))
        seen = [numbers == number for number in np.unique(numbers) if number not in (0, 255)]
        assert len(seen) == len(target["masks"])
        overlap = [[(a & b).sum() / (a | b).sum() for b in target["masks"]] for a in seen]
        assert sorted(np.argmax(overlap, 1)) == list(range(len(seen)))
        assert np.max(overlap, 1).min() > 0.9


def test_other_real_exports(tmp_path, exports):
    done = Converted(exports / "labelme/primitives", tmp_path / "a")
    assert [name for name, _ in done.found("primitives.jpg")] == [
        "rectangle", "circle", "rectangle", "polygon", "octagon",
    ]  # fmt: skip
    done = Converted(exports / "cvat_images/export_project", tmp_path / "b")
    assert {split: len(names) for split, names in done.splits.items()} == {
        "train": 2, "val": 2, "test": 2,
    }  # fmt: skip
    assert done.found("Validation/img0.jpg") == [("label1", 8)]
    done = Converted(exports / "cvat_images/export_task", tmp_path / "c")
    assert sorted(done.masks) == ["img0.jpg", "img1.jpg"]
