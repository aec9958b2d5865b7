"""COCO sources against pycocotools and against torchvision's way of reading them."""

import json

import numpy as np
import pytest
from conftest import annotation, write_coco
from PIL import Image
from pycocotools import coco as pycoco
from pycocotools import mask as rle

from segtrain.dataset.coco import VOC_OF_COCO, CocoAsVoc, CocoInstances
from segtrain.dataset.labels import COCO, VOC
from segtrain.errors import UserError

SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tree(tmp_path):
    crowd = np.zeros((40, 60), np.uint8)
    crowd[:, 40:] = 1
    code = rle.encode(np.asfortranarray(crowd))
    flat = crowd.ravel(order="F")
    runs = np.diff(np.flatnonzero(np.diff(flat, prepend=2)), append=flat.size).tolist()
    write_coco(
        tmp_path / "coco",
        [
            annotation(12, 7, [SQUARE, [40, 5, 50, 5, 50, 15]], category=90),
            annotation(11, 7, {"size": [40, 60], "counts": runs}, crowd=1),
            annotation(13, 7, {"size": [40, 60], "counts": code["counts"].decode()}, category=18),
            annotation(14, 5, {"size": [40, 60], "counts": runs}, crowd=1),
            annotation(15, 7, [SQUARE], bbox=(-5, 10, 100, 20)),
            annotation(16, 7, [[1, 1, 2, 2]]),  # no area
            annotation(17, 7, [SQUARE], bbox=(70, 10, 5, 5)),  # outside
        ],
    )
    return tmp_path / "coco"


def source(root, split="val2017", filter_empty=()):
    return CocoInstances(str(root), split, COCO, list(filter_empty))


def test_all_forms_of_masks_are_pycocotools(tree):
    images = source(tree)
    assert [images.read(i)[1]["image_id"] for i in range(3)] == [3, 5, 7]
    image, target = images.read(2)
    assert image.shape == (40, 60, 3)
    peer = pycoco.COCO(str(tree / "annotations/instances_val2017.json"))
    numbers = [11, 12, 13, 15]
    for mask, number in zip(target["masks"], numbers, strict=True):
        assert (mask == peer.annToMask(peer.anns[number])).all()
    assert target["crowd"].tolist() == [True, False, False, False]
    assert target["labels"].tolist() == [0, 79, 16, 0]  # category ids 1, 90, 18, 1
    assert target["boxes"][3].tolist() == [0, 10, 60, 30]  # clipped


def test_images_without_instances(tree):
    images = source(tree)
    _, target = images.read(0)
    assert target["masks"].shape == (0, 40, 60)
    assert target["boxes"].shape == (0, 4)
    assert len(source(tree, filter_empty=["val2017"])) == 1  # the one with crowds only goes too
    assert len(source(tree, filter_empty=["train2017"])) == 3


def test_faults_are_named(tree):
    found = "\n".join(source(tree).listing().faults)
    assert "annotation 16 has no pixel" in found
    assert "annotation 17 has no pixel" in found
    assert "twice" not in found


def test_unknown_category_is_named(tmp_path):
    write_coco(tmp_path, [annotation(1, 3, [SQUARE], category=12)])
    with pytest.raises(UserError, match="category id 12 of image 000000000003"):
        source(tmp_path).read(0)


def test_image_of_another_size_is_named(tree):
    Image.new("RGB", (50, 40)).save(tree / "val2017/000000000007.jpg")
    with pytest.raises(UserError, match=r"0007\.jpg: the image is 50x40 but .* says 60x40"):
        source(tree).read(2)


def test_changed_annotations_are_packed_anew(tree):
    assert len(source(tree).read(2)[1]["labels"]) == 4
    write_coco(tree, [annotation(1, 7, [SQUARE])])
    assert len(source(tree).read(2)[1]["labels"]) == 1


def test_minival_and_the_rest_of_val2014(tmp_path):
    write_coco(tmp_path, [], images=(1, 2, 3, 4), split="val2014")
    with pytest.raises(UserError, match=r"needs one of .*minival2014\.json"):
        source(tmp_path, "minival2014")
    write_coco(tmp_path, [], images=(2, 9), split="val2017")
    parts = [source(tmp_path, split) for split in ("minival2014", "valminusminival2014")]
    ids = [[part.read(i)[1]["image_id"] for i in range(len(part))] for part in parts]
    assert ids == [[2], [1, 3, 4]]
    assert len(source(tmp_path, "val2014_first5k")) == 4


def test_without_labels(tmp_path):
    path = write_coco(tmp_path, [], split="test2017", file="image_info_test-dev2017.json")
    content = json.loads(path.read_text())
    del content["annotations"]
    path.write_text(json.dumps(content))
    assert not source(tmp_path, "test-dev2017").labelled


def test_errors(tree, tmp_path):
    with pytest.raises(UserError, match="no split 'val'; expected one of train2017"):
        source(tree, "val")
    with pytest.raises(UserError, match="images of COCO's 'train2017' belong there"):
        source(tree, "train2017")
    (tree / "annotations/instances_val2017.json").write_text('{"images": 3}')
    with pytest.raises(UserError, match="not an annotation file of COCO"):
        source(tree)


def peer_voc_mask(peer, number, height, width):
    """As torchvision's segmentation references convert polygons, one instance at a time."""
    mask = np.zeros((height, width), np.uint8)
    claims = np.zeros((height, width), int)
    for entry in peer.imgToAnns[number]:
        if entry["category_id"] in VOC_OF_COCO:
            part = peer.annToMask(entry)
            mask = np.maximum(mask, part * VOC_OF_COCO[entry["category_id"]])
            claims += part
    mask[claims > 1] = 255
    return mask


def test_voc_relabelling(tmp_path):
    other = [20, 20, 50, 20, 50, 39, 20, 39]
    write_coco(
        tmp_path,
        [annotation(1, 3, [SQUARE], 1), annotation(2, 3, [other], 3), annotation(3, 3, [other], 13),
         annotation(4, 5, [SQUARE], 13)],
    )  # fmt: skip
    images = CocoAsVoc(str(tmp_path), "val2017", VOC, min_area=300)
    assert len(images) == 1  # image 5 shows a stop sign only, image 7 nothing
    _, mask = images.read(0)
    peer = pycoco.COCO(str(tmp_path / "annotations/instances_val2017.json"))
    assert (mask == peer_voc_mask(peer, 3, 40, 60)).all()
    assert set(np.unique(mask)) == {0, VOC.names.index("person"), VOC.names.index("car"), 255}
    with pytest.raises(UserError, match="no image"):
        CocoAsVoc(str(tmp_path), "val2017", VOC, min_area=801)


def test_voc_names_are_those_of_coco():
    names = {"airplane": "aeroplane", "motorcycle": "motorbike", "dining table": "diningtable",
             "potted plant": "pottedplant", "couch": "sofa", "tv": "tvmonitor"}  # fmt: skip
    for raw, train in VOC_OF_COCO.items():
        name = COCO.names[COCO.raw_to_train[raw]]
        assert VOC.names[train] == names.get(name, name)
    assert sorted(VOC_OF_COCO.values()) == list(range(1, 21))


@pytest.mark.parametrize("folder", ["coco", "coco_instances"])
@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_real_masks_are_pycocotools(real_data, folder, split):
    root = real_data / folder
    images = source(root, split)
    peer = pycoco.COCO(str(root / f"annotations/instances_{split}.json"))
    assert len(images) == len(peer.imgs)
    voc = CocoAsVoc(str(root), split, VOC, min_area=1000)
    relabelled = {voc.name(index): index for index in range(len(voc))}
    for index in range(len(images)):
        image, target = images.read(index)
        entries = sorted(peer.imgToAnns[target["image_id"]], key=lambda entry: entry["id"])
        assert len(entries) == len(target["masks"])
        assert target["crowd"].tolist() == [bool(entry["iscrowd"]) for entry in entries]
        for mask, label, entry in zip(target["masks"], target["labels"], entries, strict=True):
            assert (mask == peer.annToMask(entry)).all()
            assert COCO.names[label] == peer.cats[entry["category_id"]]["name"]
        if images.name(index) in relabelled:
            mask = voc.read(relabelled[images.name(index)])[1]
            assert (mask == peer_voc_mask(peer, target["image_id"], *image.shape[:2])).all()
