"""COCO JSON as tools write it: categories, splits, and where the images are."""

import json

import numpy as np
import pytest
from exporting import HEIGHT, WIDTH, Converted, coco, picture, write
from pycocotools import mask as rle

from segtrain.dataset.coco_entries import decompressed
from segtrain.errors import UserError
from segtrain.prepare.exports.recognise import read_export
from segtrain.prepare.exports.write import describe

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


SQUARE = [[5, 5, 15, 5, 15, 15, 5, 15]]


def plain(root, *names, annotations=None, categories=({"id": 0, "name": "bolt"},), **keys):
    """A file of images called `names`, whose ids count from 0, with a square each."""
    annotations = annotations or [
        {"id": i, "image_id": i, "category_id": 0, "segmentation": SQUARE}
        for i in range(len(names))
    ]
    images = [{"id": i, "file_name": name, **keys} for i, name in enumerate(names)]
    write(
        root / "result.json",
        {"images": images, "annotations": annotations, "categories": categories},
    )
    return root


@pytest.mark.parametrize(
    "name",
    ["images\\1\\ab12cd34-a.jpg", "/data/upload/1/ab12cd34-a.jpg", "images/a.jpg", "a.jpg",
     "../../label-studio/data/media/upload/1/ab12cd34-a.jpg", "/home/me/set/images/a.jpg",
     "http://localhost:8080/data/upload/1/ab12cd34-a.jpg"],
)  # fmt: skip
def test_names_of_images_in_several_dialects(tmp_path, name):
    root = plain(tmp_path / "in", name)
    picture(root / "images/a.jpg")
    assert Converted(root, tmp_path / "out").found("a.jpg") == [("bolt", 100)]


def test_an_image_that_its_path_names_elsewhere(tmp_path):
    picture(tmp_path / "photos/a.jpg")
    root = plain(tmp_path / "train", str(tmp_path / "photos/a.jpg"))
    assert Converted(root, tmp_path / "out").found("photos/a.jpg") == [("bolt", 100)]
    root = plain(tmp_path / "in/annotations", "../photos/b.jpg")
    picture(tmp_path / "in/photos/b.jpg")
    assert Converted(root, tmp_path / "other").found("photos/b.jpg") == [("bolt", 100)]


def test_a_file_in_annotations_finds_the_images_beside_them(tmp_path):
    name = "annotations/instances_Train.json"
    root = coco(tmp_path / "in", name)
    (root / "annotations/a.jpg").unlink()
    picture(root / "images/Train/a.jpg")
    assert len(Converted(root / name, tmp_path / "out").found("Train/a.jpg")) == 2


def test_masks_that_cvat_calls_crowds_are_objects(tmp_path):
    runs = {"size": [HEIGHT, WIDTH], "counts": [0, 60, HEIGHT * WIDTH - 60]}
    entries = [
        {"id": number, "image_id": 0, "category_id": 0, "segmentation": runs, "iscrowd": 1, **more}
        for number, more in enumerate(({"attributes": {"occluded": False}}, {}))
    ]
    root = plain(tmp_path / "in", "a.jpg", annotations=entries)
    picture(root / "a.jpg")
    done = Converted(root, tmp_path / "out")
    assert done.objects["a.jpg"]["crowd"].tolist() == [False, True]
    assert list(done.export.noted.values()) == [["result.json: annotation 0"]]


def test_outlines_of_every_kind(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[5:15, 5:15] = 1
    code = rle.encode(np.asfortranarray(mask))
    compressed = {"size": code["size"], "counts": code["counts"].decode()}
    runs = {"size": code["size"], "counts": decompressed(compressed["counts"])}
    outlines = [SQUARE, SQUARE[0], compressed, runs, [[float(v) for v in SQUARE[0]]]]
    entries = [
        {"image_id": "p-7", "category_id": "k", "segmentation": outline} for outline in outlines
    ]
    root = plain(tmp_path / "in", annotations=entries, categories=[{"id": "k", "name": "nut"}])
    content = json.loads((root / "result.json").read_text())
    content["images"] = [{"id": "p-7", "file_name": "a.jpg", "width": 80.0, "height": 60.0}]
    write(root / "result.json", content)
    picture(root / "a.jpg")
    done = Converted(root, tmp_path / "out")
    assert done.found("a.jpg") == [("nut", 100)] * 5
    assert (done.masks["a.jpg"] == mask).all()


def test_ids_as_tables_write_them(tmp_path):
    entries = [
        {"id": 1.0, "image_id": 0.0, "category_id": "0", "segmentation": SQUARE, "iscrowd": 0.0}
    ]
    root = plain(tmp_path / "in", "a.jpg", annotations=entries, width=0, height=0)
    picture(root / "a.jpg")
    assert Converted(root, tmp_path / "out").found("a.jpg") == [("bolt", 100)]


def test_roboflows_head_is_no_class_and_said(tmp_path):
    categories = [
        {"id": 0, "name": "screws", "supercategory": "none"},
        {"id": 1, "name": "bolt", "supercategory": "screws"},
        {"id": 2, "name": "none", "supercategory": "none"},
        {"id": 3, "supercategory": "screws"},
    ]
    entries = [{"id": 1, "image_id": 0, "category_id": 1, "segmentation": SQUARE}]
    root = plain(tmp_path / "in", "a.jpg", annotations=entries, categories=categories)
    picture(root / "a.jpg")
    done = Converted(root, tmp_path / "out")
    assert done.classes == ("bolt", "none", "3")
    assert describe(done.export) == (
        "dropped     nothing\n"
        "noted       1 categories that only head others, so no classes: result.json: screws"
    )


def test_two_images_are_never_one_file(tmp_path):
    root = plain(tmp_path / "in", "north/a.jpg", "south/a.jpg")
    picture(root / "a.jpg")
    with pytest.raises(UserError, match="found for south/a.jpg as well as for north/a.jpg"):
        read_export(root, None)
    plain(root, "a.jpg", "./a.jpg")
    done = Converted(root, tmp_path / "out")
    assert done.found("a.jpg") == [("bolt", 100)]
    assert done.export.dropped["further entries of one image file"] == ["result.json: ./a.jpg"]


@pytest.mark.parametrize(
    ("part", "entries", "message"),
    [
        ("images", [{"id": 1, "file_name": "a.jpg"}, {"id": "1", "file_name": "b.jpg"}],
         "image id 1 is a.jpg and b.jpg"),
        ("categories", [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}],
         "category id 1 is a and b"),
        ("annotations", [3], "an entry of annotations is no object"),
        ("images", [None], "an entry of images is no object"),
    ],
)  # fmt: skip
def test_files_that_contradict_themselves_are_refused(tmp_path, part, entries, message):
    root = plain(tmp_path / "in", "a.jpg")
    picture(root / "a.jpg")
    content = json.loads((root / "result.json").read_text())
    write(root / "result.json", {**content, part: entries})
    with pytest.raises(UserError, match=rf"result\.json: {message}"):
        read_export(root, None)
