import numpy as np
import pytest
from conftest import write_pair
from PIL import Image
from scipy.io import savemat

from segtrain.dataset.labels import VOC
from segtrain.dataset.voc import voc
from segtrain.errors import UserError


@pytest.fixture
def tree(tmp_path):
    """VOC with train a b, val c d and SBD with train b c x, val d y, in the official layouts."""
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for index, name in enumerate("abcd"):
        write_pair(base, name, np.full((20, 30), index, np.uint8))
    (base / "images").rename(base / "JPEGImages")
    (base / "masks").rename(base / "SegmentationClass")
    lists = base / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for split, names in {"train": "ab", "val": "cd", "trainval": "abcd", "test": "z"}.items():
        (lists / f"{split}.txt").write_text("\n".join(names))
    sbd = tmp_path / "benchmark_RELEASE" / "dataset"
    (sbd / "cls").mkdir(parents=True)
    for index, name in enumerate("bcdxy"):
        write_sbd(sbd / "cls" / f"{name}.mat", np.full((20, 30), 10 + index, np.uint8))
    (sbd / "train.txt").write_text("b\nc\nx\n")
    (sbd / "val.txt").write_text("d\ny\n")
    write_pair(sbd, "y", np.zeros((20, 30), np.uint8))
    (sbd / "images").rename(sbd / "img")
    write_pair(base, "x", np.zeros((20, 30), np.uint8))
    (base / "images" / "x.jpg").rename(base / "JPEGImages" / "x.jpg")
    return tmp_path


def write_sbd(path, segmentation):
    fields = {
        "Boundaries": np.zeros((20, 1)),
        "Segmentation": segmentation,
        "CategoriesPresent": [[1]],
    }
    savemat(path, {"GTcls": fields})


def contents(source):
    return {source.name(i).split("/")[-1][0]: source.read(i)[1].max() for i in range(len(source))}


def test_trainaug_is_voc_and_sbd_without_val(tree):
    source = voc(str(tree), "trainaug", VOC)
    # a and b have VOC masks, which win; x and y only those of SBD
    assert contents(source) == {"a": 0, "b": 1, "x": 13, "y": 14}
    names = [source.name(index) for index in range(4)]
    assert names[2].startswith("VOCdevkit")  # VOC's copy of the image where it has one
    assert names[3].startswith("benchmark_RELEASE")


def test_community_masks_and_list_are_taken(tree):
    base = tree / "VOCdevkit" / "VOC2012"
    (base / "SegmentationClassAug").mkdir()
    for name in "ax":
        mask = Image.fromarray(np.full((20, 30), 7, np.uint8))
        mask.save(base / "SegmentationClassAug" / f"{name}.png")
    (base / "ImageSets/Segmentation/trainaug.txt").write_text("x\na\n")
    assert contents(voc(str(tree), "trainaug", VOC)) == {"a": 0, "x": 7}


def test_trainaug_needs_sbd(tree):
    (tree / "benchmark_RELEASE").rename(tree / "elsewhere")
    with pytest.raises(UserError, match="trainaug needs SBD"):
        voc(str(tree), "trainaug", VOC)


def test_complete_lists_must_give_10582(tree, monkeypatch):
    lists = tree / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    sbd = tree / "benchmark_RELEASE/dataset"
    (lists / "train.txt").write_text("\n".join(f"t{i}" for i in range(1464)))
    (lists / "val.txt").write_text("\n".join(f"v{i}" for i in range(1449)))
    (sbd / "train.txt").write_text("\n".join(f"s{i}" for i in range(8498)))
    # Of SBD's 11,355 ids, 9,118 are new and 2,237 are in VOC val or train.
    (sbd / "val.txt").write_text(
        "\n".join([*(f"r{i}" for i in range(620)), *(f"v{i}" for i in range(1449)),
                   *(f"t{i}" for i in range(788))])
    )  # fmt: skip
    assert len(voc(str(tree), "trainaug", VOC)) == 10582
    (sbd / "val.txt").write_text("\n".join(f"q{i}" for i in range(2857)))
    with pytest.raises(UserError, match="12819 images, expected 10582"):
        voc(str(tree), "trainaug", VOC)


def test_test_split_has_no_masks(tree):
    (tree / "VOCdevkit/VOC2012/JPEGImages/a.jpg").rename(
        tree / "VOCdevkit/VOC2012/JPEGImages/z.jpg"
    )
    source = voc(str(tree), "test", VOC)
    assert not source.labelled
    assert (source.read(0)[1] == 255).all()


def test_real_trainaug(real_data):
    source = voc(str(real_data / "voc2012"), "trainaug", VOC)
    assert len(source) == 189
    for index in range(0, 189, 20):
        pair = source.pairs[index]
        assert (source.read(index)[1] == np.asarray(Image.open(pair.mask))).all()
    augmented = [pair.mask for pair in source.pairs if "ClassAug" in pair.mask]
    assert len(augmented) == 36


def test_official_lists_make_trainaug(real_data, tree):
    """VOC's official lists and SBD's ids (all of the community's list and VOC val) give 10,582."""
    official = real_data / "voc2012" / "official_lists"
    lists, sbd = tree / "VOCdevkit/VOC2012/ImageSets/Segmentation", tree / "benchmark_RELEASE"
    for split in ("train", "val"):
        (lists / f"{split}.txt").write_text((official / f"{split}.txt").read_text())
    names = (official / "trainaug.txt").read_text().split()
    (sbd / "dataset/train.txt").write_text("\n".join(names))
    (sbd / "dataset/val.txt").write_text((official / "val.txt").read_text())
    source = voc(str(tree), "trainaug", VOC)
    assert len(source) == 10582
    assert {source.name(i).rpartition("/")[2][:-4] for i in range(len(source))} == set(names)


def test_sbd_lists_with_sbd_files(tree):
    sbd = tree / "benchmark_RELEASE/dataset"
    source = voc(str(tree), "sbd_train", VOC)
    assert [source.pairs[i].image for i in range(3)] == [str(sbd / f"img/{n}.jpg") for n in "bcx"]
    (sbd / "img/d.jpg").write_bytes((sbd / "img/y.jpg").read_bytes())
    assert contents(voc(str(tree), "sbd_val", VOC)) == {"d": 12, "y": 14}


def test_val_without_sbd(tree):
    assert contents(voc(str(tree), "val_without_sbd", VOC)) == {"d": 3}
    (tree / "benchmark_RELEASE/dataset/train.txt").write_text("c\nd\n")
    with pytest.raises(UserError, match="val_without_sbd is empty"):
        voc(str(tree), "val_without_sbd", VOC)


def test_lists_of_the_user_are_splits(tree):
    lists = tree / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    for split in ("seg11valid", "val_without_sbd", "train_hard", "sbd_val"):
        (lists / f"{split}.txt").write_text("c\na\n")
        assert contents(voc(str(tree), split, VOC)) == {"c": 2, "a": 0}
    with pytest.raises(UserError, match="other.txt: no such split list; found: .*seg11valid"):
        voc(str(tree), "other_hard", VOC)


@pytest.mark.parametrize("split", ["sbd_train", "sbd_val", "val_without_sbd"])
def test_splits_that_need_sbd_say_so(split, tree):
    (tree / "benchmark_RELEASE").rename(tree / "elsewhere")
    with pytest.raises(UserError, match=f"{split} needs SBD: .* downloads SBD"):
        voc(str(tree), split, VOC)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))


def test_hard_images_are_those_with_hard_classes(tree, cache, caplog):
    caplog.set_level("INFO")
    # a, b, c and d show background, aeroplane, bicycle, and chair in one pixel.
    masks = tree / "VOCdevkit/VOC2012/SegmentationClass"
    mixed = np.zeros((20, 30), np.uint8)
    mixed[3, 4] = 9
    Image.fromarray(mixed).save(masks / "d.png")
    assert contents(voc(str(tree), "trainval_hard", VOC)) == {"c": 2, "d": 9}
    assert caplog.text.count("in 4 images, once") == 1
    assert len(voc(str(tree), "trainval_hard", VOC)) == 2
    assert caplog.text.count("once") == 1  # the second time from the cache
    mixed[3, 4] = 8
    Image.fromarray(mixed).save(masks / "d.png", compress_level=0)
    assert contents(voc(str(tree), "trainval_hard", VOC)) == {"c": 2}
    with pytest.raises(UserError, match="'train_hard' is empty: no image shows bicycle"):
        voc(str(tree), "train_hard", VOC)
    with pytest.raises(UserError, match="'test_hard': its images have no public masks"):
        voc(str(tree), "test_hard", VOC)


def test_hard_images_of_trainaug_come_from_either_set(tree, cache):
    masks = tree / "benchmark_RELEASE/dataset/cls"
    write_sbd(masks / "y.mat", np.full((20, 30), 18, np.uint8))
    assert contents(voc(str(tree), "trainaug_hard", VOC)) == {"y": 18}


def test_real_hard_images_against_a_scan(real_data, cache):
    whole = voc(str(real_data / "voc2012"), "trainval", VOC)
    hard = voc(str(real_data / "voc2012"), "trainval_hard", VOC)
    expected = [
        pair
        for pair in whole.pairs
        if np.isin(np.asarray(Image.open(pair.mask)), [2, 9, 11, 16, 18]).any()
    ]
    assert list(hard.pairs) == expected
    assert 0 < len(expected) < len(whole)
