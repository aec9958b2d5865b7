"""Every planted fault is found and named."""

import json
import re

import numpy as np
import pytest
from conftest import composed, write_pair
from PIL import Image

from segtrain.assembly import build_data
from segtrain.prepare.verify import verify


def faults(root, dataset="folder", counts=None, workers=0):
    config = composed(f"dataset={dataset}", f"dataset.source.root={root}", "dataset.num_workers=0")
    data = build_data(config)
    reports = verify(data, counts or data.preparation.counts, data.preparation.optional, workers)
    return [fault for report in reports for fault in report.faults], reports


def test_a_right_set_has_no_fault(folder_set):
    found, (train, val) = faults(folder_set, counts={"train": 6, "val": 2}, workers=2)
    assert not found
    assert (train.images, val.images) == (6, 2)
    assert train.smallest == train.largest == (40, 48)
    assert train.counts.sum() == 6 * 40 * 48
    masks = [np.asarray(Image.open(folder_set / f"masks/p{index}.png")) for index in range(6)]
    assert train.counts[:3].tolist() == np.bincount(np.ravel(masks)).tolist()
    assert train.images_with.tolist() == [6, 6, 6]


@pytest.fixture
def listed(folder_set):
    """The same pairs as CamVid lays them out: lists of image and mask."""
    for split in ("train", "val", "test"):
        (folder_set / split).mkdir()
        (folder_set / f"{split}annot").mkdir()
    for index in range(8):
        split = "train" if index < 6 else "val"
        (folder_set / f"images/p{index}.jpg").rename(folder_set / split / f"p{index}.jpg")
        (folder_set / f"masks/p{index}.png").rename(folder_set / f"{split}annot" / f"p{index}.png")
    lines = [f"train/p{i}.jpg trainannot/p{i}.png" for i in range(6)]
    (folder_set / "train.txt").write_text("\n".join(lines))
    (folder_set / "val.txt").write_text("val/p6.jpg valannot/p6.png\nval/p7.jpg valannot/p7.png\n")
    return folder_set


COUNTS = {"train": 6, "val": 2}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (lambda r: (r / "trainannot/p3.png").unlink(), r"trainannot/p3\.png: No such file"),
        (lambda r: (r / "train/p3.jpg").unlink(), r"train/p3\.jpg: No such file"),
        (lambda r: Image.new("RGB", (9, 9)).save(r / "train/x.png"), r"train/x\.png: extra file"),
        (lambda r: Image.new("L", (9, 9)).save(r / "valannot/x.png"), r"valannot/x\.png: extra"),
        (lambda r: Image.new("L", (47, 40)).save(r / "trainannot/p3.png"),
         r"p3\.png: the mask is 47x40 but its image .*p3\.jpg is 48x40"),
        (lambda r: Image.new("L", (48, 40), 12).save(r / "trainannot/p3.png"),
         r"p3\.png: mask value 12 is not in the label map"),
        (lambda r: cut(r / "trainannot/p3.png"), r"p3\.png: truncated PNG"),
        (lambda r: cut(r / "train/p3.jpg"), r"p3\.jpg: truncated or damaged image"),
        (lambda r: append(r / "train.txt", "train/p0.jpg trainannot/p0.png"),
         r"train/p0\.jpg: listed 2 times"),
        (lambda r: append(r / "train.txt", "train/p0.jpg trainannot/p0.png"),
         "split 'train' has 7 images, expected 6"),
        (lambda r: (r / "val.txt").unlink(), r"val\.txt: no such split list"),
        (lambda r: Image.new("RGB", (48, 40)).save(r / "trainannot/p3.png"),
         r"p3\.png: a mask needs one channel"),
    ],
)  # fmt: skip
def test_planted_faults(listed, plant, message, workers):
    assert not faults(listed, "camvid", COUNTS)[0]
    plant(listed)
    found, _ = faults(listed, "camvid", COUNTS, workers)
    assert [fault for fault in found if re.search(message, fault)], found


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def append(path, line):
    path.write_text(f"{path.read_text()}\n{line}\n")


def test_truncated_png_image(tmp_path):
    root = tmp_path / "own"
    for index in range(2):
        write_pair(root, f"p{index}", np.eye(90, 80, dtype=np.uint8))
    noise = np.random.default_rng(0).integers(0, 256, (90, 80, 3), dtype=np.uint8)
    (root / "images/p1.jpg").unlink()
    Image.fromarray(noise).save(root / "images/p1.png")
    (root / "classes.txt").write_text("a\nb\n")
    (root / "train.txt").write_text("p0\np1\n")
    assert not faults(root, counts={"train": None})[0]
    cut(root / "images/p1.png")
    assert "p1.png: truncated PNG" in faults(root, counts={"train": None})[0][0]


def test_optional_splits_may_be_absent(listed):
    config = composed("dataset=camvid", f"dataset.source.root={listed}", "dataset.num_workers=0")
    data = build_data(config)
    *_, report = verify(data, {**COUNTS, "test": 3}, ["test"], 0)
    assert "no such split list" in report.absent
    assert not report.faults


def test_duplicate_ids_of_coco(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "val2017").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "val2017/1.jpg")
    image = {"id": 1, "file_name": "1.jpg", "height": 40, "width": 60}
    box = {"id": 5, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81,
           "segmentation": [[0, 0, 9, 0, 9, 9]], "iscrowd": 0}  # fmt: skip
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations/instances_val2017.json"
    path.write_text(
        json.dumps({"images": [image, image], "annotations": [box, box, {**box, "image_id": 2}]})
    )
    found, _ = faults(tmp_path, "coco2017", {"val2017": None})
    text = "\n".join(found)
    assert "image id 1 stands 2 times" in text
    assert "annotation id 5 stands 3 times" in text
    assert "annotation 5 is of no listed image" in text
    assert "1.jpg: listed 2 times" in text


def test_one_class_that_may_be_nowhere_is_enough(tmp_path):
    """As training has it: that pixels are not of the class is an answer, too."""
    for name in "ab":
        write_pair(tmp_path, name, np.kron(np.eye(4, dtype=np.uint8), np.full((9, 9), 255, "u1")))
    counts = {"train": None, "val": None}
    found, _ = faults(tmp_path, "folder_multilabel", counts)
    assert not found
