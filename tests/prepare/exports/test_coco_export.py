"""COCO JSON as tools write it: categories, splits, and where the images are."""

import pytest
from exporting import Converted, coco, picture

from segtrain.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")


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


def test_images_that_two_files_annotate_are_taken_once(tmp_path):
    root = tmp_path / "in"
    for name in ("first", "second"):
        coco(root, f"{name}.json")
    done = Converted(root, tmp_path / "out")
    assert done.found("a.jpg") == [("bolt", 100), ("bolt", 60)]
    assert done.export.dropped["images that another file has objects for"] == ["second.json: a.jpg"]
