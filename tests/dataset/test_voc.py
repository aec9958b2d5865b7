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
