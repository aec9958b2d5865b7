"""Listing functions: fixture trees in the official layout, and the real samples."""

import numpy as np
import pytest
from conftest import write_pair
from PIL import Image

from segtrain.dataset.camvid import camvid
from segtrain.dataset.folder import folder, folder_labels
from segtrain.dataset.labels import CAMVID, VOC, voc_colour_map
from segtrain.dataset.voc import voc
from segtrain.errors import UserError


@pytest.fixture
def voc_tree(tmp_path):
    base = tmp_path / "voc2012" / "VOCdevkit" / "VOC2012"
    mask = np.zeros((20, 30), np.uint8)
    mask[2:9, 2:9], mask[0] = 15, 255
    write_pair(base, "2007_000001", mask)
    (base / "images").rename(base / "JPEGImages")
    (base / "masks").rename(base / "SegmentationClass")
    (base / "ImageSets/Segmentation").mkdir(parents=True)
    (base / "ImageSets/Segmentation/val.txt").write_text("2007_000001\n")
    (base / "ImageSets/Segmentation/train.txt").write_text("\n")
    return tmp_path / "voc2012"


@pytest.mark.parametrize("inside", [".", "VOCdevkit/VOC2012"])
def test_voc_in_the_official_layout(voc_tree, inside):
    source = voc(str(voc_tree / inside), "val", VOC)
    image, mask = source.read(0)
    assert len(source) == 1
    assert image.shape == (20, 30, 3)
    assert set(np.unique(mask)) == {0, 15, 255}
    assert source.name(0) == "JPEGImages/2007_000001.jpg"


def test_empty_and_missing_splits_are_errors(voc_tree):
    with pytest.raises(UserError, match="split is empty"):
        voc(str(voc_tree), "train", VOC)
    with pytest.raises(UserError, match=r"trainval\.txt: no such split list; found: train, val"):
        voc(str(voc_tree), "trainval", VOC)
    with pytest.raises(UserError, match="SEGTRAIN_DATA"):
        voc(str(voc_tree / "nowhere"), "train", VOC)


def test_voc_colour_map_is_the_devkits():
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    colours = voc_colour_map(256)
    assert {index: colours[index] for index in known} == known
    assert colours[255] == (224, 224, 192)


def test_camvid_lists_pairs(tmp_path):
    write_pair(tmp_path, "a", np.full((20, 30), 11, np.uint8))
    (tmp_path / "test.txt").write_text("images/a.jpg masks/a.png\n")
    _, mask = camvid(str(tmp_path), "test", CAMVID).read(0)
    assert (mask == 255).all()
    (tmp_path / "val.txt").write_text("images/a.jpg\n")
    with pytest.raises(UserError, match=r"val\.txt line 1"):
        camvid(str(tmp_path), "val", CAMVID)


def test_folder_with_lists(folder_set):
    labels = folder_labels(str(folder_set))
    assert labels.names == ("sky", "road", "car")
    assert len(folder(str(folder_set), "train", labels)) == 6
    assert folder(str(folder_set), "val", labels).name(0) == "images/p6.jpg"


def test_folder_without_lists_splits_by_name_for_good(folder_set):
    labels = folder_labels(str(folder_set))
    for path in folder_set.glob("t*.txt"), folder_set.glob("v*.txt"):
        for file in path:
            file.unlink()

    def names(split):
        source = folder(str(folder_set), split, labels)
        return {source.name(index) for index in range(len(source))}

    before = names("train"), names("val")
    assert not before[0] & before[1]
    assert len(before[0] | before[1]) == 8
    for index in range(20, 30):
        write_pair(folder_set, f"new{index}", np.zeros((40, 48), np.uint8))
    assert before[0] <= names("train")
    assert before[1] <= names("val")
    with pytest.raises(UserError, match="train and val"):
        names("test")


@pytest.mark.parametrize(
    ("text", "raw_to_train"),
    [
        ("a\nb\n", {0: 0, 1: 1, 255: None}),
        ("a\nvoid\nb\n", {0: 0, 1: None, 2: 1, 255: None}),
        ("0 background\n255 object\n", {0: 0, 255: 1}),
        ("7 road\n11 big building\n0 void\n", {7: 0, 11: 1, 0: None, 255: None}),
    ],
)
def test_classes_file(tmp_path, text, raw_to_train):
    (tmp_path / "classes.txt").write_text(text)
    assert dict(folder_labels(str(tmp_path)).raw_to_train) == raw_to_train


@pytest.mark.parametrize(
    ("text", "message"),
    [("a\na\n", "class a"), ("1 a\n1 b\n", "mask value 1"), ("void\n", "least")],
)
def test_bad_classes_file(tmp_path, text, message):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        folder_labels(str(tmp_path))


def test_folder_names_what_is_missing(folder_set):
    labels = folder_labels(str(folder_set))
    (folder_set / "masks/p3.png").unlink()
    with pytest.raises(UserError, match=r"no mask p3\.png"):
        folder(str(folder_set), "train", labels)
    (folder_set / "images/p2.jpg").unlink()
    with pytest.raises(UserError, match="no image named p2"):
        folder(str(folder_set), "train", labels)


def test_real_camvid(real_data):
    lengths = [len(camvid(str(real_data / "camvid"), s, CAMVID)) for s in ("train", "val", "test")]
    assert lengths == [367, 101, 233]
    source = camvid(str(real_data / "camvid"), "val", CAMVID)
    image, mask = source.read(5)
    assert image.shape == (360, 480, 3)
    raw = np.asarray(Image.open(source.pairs[5].mask))
    assert (mask == np.where(raw == 11, 255, raw)).all()


def test_real_voc_masks_equal_their_palette_indices(real_data):
    source = voc(str(real_data / "voc2012"), "val", VOC)
    assert len(source) == 153
    for index in range(0, 153, 30):
        _, mask = source.read(index)
        assert (mask == np.asarray(Image.open(source.pairs[index].mask))).all()
