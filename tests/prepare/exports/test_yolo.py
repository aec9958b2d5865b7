"""YOLO segmentation: layouts of its files, classes, and lines that are no outlines."""

import numpy as np
import pytest
from exporting import Converted, picture, write, yolo

from segtrain.errors import UserError
from segtrain.prepare.exports.recognise import NotAnExportError, read_export

pytestmark = pytest.mark.usefixtures("own_cache")


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
    lines = ["0 0.5 0.5 0.2 0.2", "0 0 0 1 0 1", "x 1 2", "0.5 0 0 1 0 1 z",
             "1 0.2 0.2 0.2 0.2 0.2 0.2", "1 0 0 1 0 1.004 1"]  # fmt: skip
    write(root / "labels/train/a.txt", "\n".join(lines))
    done = Converted(root, tmp_path / "out")
    assert [name for name, _ in done.found("train/a.jpg")] == ["nut"]
    places = [place for places in done.export.dropped.values() for place in places]
    for line in range(1, 6):
        assert any(f"a.txt line {line}" in place for place in places), line
    assert len(places) == 5
    assert list(done.export.noted.values()) == [["val/a.jpg"]]
    write(root / "labels/train/a.txt", "\n".join(
        ["7 0 0 1 0 1 1", "0 0 0 1 0 1 1", "-1 0 0 1 0 1 1", "0 0 0 nan 0 1 1",
         "0 10 10 40 10 40 40", "0 0 0 1 0 1.2 1", "0.5 0 0 1 0 1 1"]
    ))  # fmt: skip
    with pytest.raises(UserError) as refused:
        read_export(root, None)
    for text in ("line 1: class 7, expected 0 to 1 (bolt, nut)", "line 3: class -1", "line 4: nan",
                 "line 5: 10.0, expected 0 to 1", "line 6: 1.2", "and 1 more"):  # fmt: skip
        assert text in str(refused.value)


OUTLINE = "0 0.25 0.5 0.5 0.5 0.5 1 0.25 1\n"
SPLITS = ("train", "val", "test")


def layout(root, folder="{part}/{split}", folders=SPLITS, **keys):
    """An export with one image a split, called like it, and keys of its data.yaml."""
    for split, name in zip(SPLITS, folders, strict=True):
        picture(root / folder.format(part="images", split=name) / f"{split}.jpg")
        write(root / folder.format(part="labels", split=name) / f"{split}.txt", OUTLINE)
    write(root / "data.yaml", "\n".join(f"{key}: {value}" for key, value in keys.items()))
    return root


ROBOFLOW = {split: f"../{name}/images" for split, name in
            zip(SPLITS, ("train", "valid", "test"), strict=True)}  # fmt: skip
PLAIN = {split: f"images/{split}" for split in SPLITS}
NAMES = {"nc": 2, "names": "['bolt', 'nut']"}
LAYOUTS = {
    "Ultralytics": {"path": ".", **PLAIN, "names": "{0: bolt, 1: nut}"},
    "no path": {**PLAIN, **NAMES},
    "the path of another machine": {"path": "/home/me/datasets/screws", **PLAIN, **NAMES},
    "of Windows": {"path": "C:\\data\\screws", **PLAIN, **NAMES},
    "relative to another folder": {"path": "datasets/screws", **PLAIN, **NAMES},
    "folders of another machine": {s: f"/home/me/screws/images/{s}" for s in SPLITS} | NAMES,
    "folders of Windows": {s: f"D:\\screws\\images\\{s}" for s in SPLITS} | NAMES,
    "lists of folders": {s: f"[images/{s}, images/{s}]" for s in SPLITS} | NAMES,
    "lists of images": {s: f"[images/{s}/{s}.jpg]" for s in SPLITS} | NAMES,
    "validation": {"train": "images/train", "validation": "images/val", "test": "images/test",
                   "names": "[bolt, nut]"},
    "names alone": NAMES,
    "their count alone": {**PLAIN, "nc": 2},
}  # fmt: skip


@pytest.mark.parametrize("keys", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_of_folders_by_part(tmp_path, keys):
    done = Converted(layout(tmp_path / "in", **keys), tmp_path / "out")
    assert done.splits == {split: [f"{split}/{split}.jpg"] for split in SPLITS}
    for split in SPLITS:
        assert done.found(f"{split}/{split}.jpg") == [(done.classes[0], 600)]


def test_layout_of_roboflow(tmp_path):
    """Its paths begin with `..`, and mean the folders beside the file all the same."""
    picture(tmp_path / "train/images/stranger.jpg")
    folders = ("train", "valid", "test")
    root = layout(tmp_path / "in", "{split}/{part}", folders, **ROBOFLOW, **NAMES)
    done = Converted(root, tmp_path / "out")
    assert done.splits == {
        split: [f"{name}/images/{split}.jpg"] for split, name in zip(SPLITS, folders, strict=True)
    }
    assert [len(objects["labels"]) for objects in done.objects.values()] == [1, 1, 1]


def test_a_split_that_is_not_there_is_told(tmp_path):
    root = layout(tmp_path / "in", "{split}/{part}", **ROBOFLOW, **NAMES)  # val, not valid
    done = Converted(root, tmp_path / "out")
    assert done.export.dropped == {"splits that are not there": ["val: ../valid/images"]}
    assert sorted(done.masks) == ["test/images/test.jpg", "train/images/train.jpg"]
    write(root / "data.yaml", "train: a/images\nval: b/images\nnames: [x]\n")
    with pytest.raises(UserError, match="train is a/images, which is not in"):
        read_export(root, None)


@pytest.mark.parametrize("place", ["classes.txt", "labels/classes.txt"])
def test_flat_layouts_with_a_list_of_classes(tmp_path, place):
    for name in ("a", "b"):
        picture(tmp_path / f"in/images/{name}.jpg")
        write(tmp_path / f"in/labels/{name}.txt", OUTLINE)
    write(tmp_path / "in" / place, "\ufeffbolt\r\nnut\r\n")
    done = Converted(tmp_path / "in", tmp_path / "out")
    assert done.classes == ("bolt", "nut")
    assert done.found("a.jpg") == done.found("b.jpg") == [("bolt", 600)]


def test_labels_beside_the_images(tmp_path):
    picture(tmp_path / "in/a.jpg")
    write(tmp_path / "in/a.txt", "\ufeff" + OUTLINE.replace("\n", "\r\n"))
    write(tmp_path / "in/classes.txt", "bolt\nnut\n")
    assert Converted(tmp_path / "in", tmp_path / "out").found("a.jpg") == [("bolt", 600)]


def test_flat_labels_of_images_in_folders(tmp_path):
    root = layout(tmp_path / "in", **PLAIN, **NAMES)
    for split in SPLITS:
        (root / f"labels/{split}/{split}.txt").rename(root / f"labels/{split}.txt")
    done = Converted(root, tmp_path / "out")
    assert all(len(objects["labels"]) == 1 for objects in done.objects.values())


def test_masks_in_a_folder_called_labels_are_none_of_yolo(tmp_path):
    picture(tmp_path / "images/a.jpg")
    picture(tmp_path / "labels/a.png")
    write(tmp_path / "classes.txt", "bolt\nnut\n")
    with pytest.raises(NotAnExportError):
        read_export(tmp_path, None)


def test_labels_without_names_are_told(tmp_path):
    root = layout(tmp_path / "in")
    (root / "data.yaml").unlink()
    write(root / "labels/a.txt", OUTLINE)
    with pytest.raises(UserError, match=r"neither data\.yaml nor classes\.txt names their classes"):
        read_export(root, None)


def test_names_are_texts(tmp_path):
    root = layout(tmp_path / "in", **PLAIN, names="[no, 007]")
    assert Converted(root, tmp_path / "out").classes == ("no", "007")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nc: 3\nnames: [bolt, nut]", "nc is 3, but there are 2 names"),
        ("names: {0: bolt, 2: nut}", "names are numbered 0, 2, expected 0 to 1"),
        ("names: {a: bolt, b: nut}", "names are numbered a, b"),
        ("names: [[bolt], nut]", "no list of class names"),
        ("names:", "no list of class names"),
        ("names: [bolt\n", "not a data.yaml of YOLO"),
        ("names: " + "[" * 5000, "not a data.yaml of YOLO"),
        ("names: [bolt]\nkpt_shape: [17, 3]", "key points"),
        ("names: !!python/object/apply:os.getcwd []", "no list of class names|not a data.yaml"),
    ],
)
def test_faults_of_the_file_are_told(tmp_path, text, message):
    root = layout(tmp_path / "in")
    write(root / "data.yaml", text)
    with pytest.raises(UserError, match=message) as refused:
        read_export(root, None)
    assert str(root / "data.yaml") in str(refused.value)


def test_labels_in_another_encoding_are_told(tmp_path):
    root = layout(tmp_path / "in", **PLAIN, **NAMES)
    (root / "labels/train/train.txt").write_bytes(b"0 0.1 0.2\xff")
    with pytest.raises(UserError, match=r"train\.txt: not in UTF-8"):
        read_export(root, None)


def test_an_outline_that_returns_along_itself_has_a_hole(tmp_path):
    root = layout(tmp_path / "in", **PLAIN, **NAMES)
    around = "0.1 0.1 0.9 0.1 0.9 0.9 0.1 0.9 0.1 0.1"
    hole = "0.3 0.3 0.3 0.7 0.7 0.7 0.7 0.3 0.3 0.3"
    write(root / "labels/train/train.txt", f"1 {around} {hole} 0.1 0.1\n")
    mask = Converted(root, tmp_path / "out").masks["train/train.jpg"]
    assert mask[30, 40] == 0
    assert (mask[7:17, 10:70] == 2).all()
    assert abs((mask > 0).sum() - (48 * 64 - 24 * 32)) < 20
