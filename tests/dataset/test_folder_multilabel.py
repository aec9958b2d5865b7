"""Masks of classes that may overlap: a file a class, a single class, and objects of a COCO JSON."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from segtrain.dataset.coco_json import coco_json_multilabel
from segtrain.dataset.coco_json import multilabel_labels as labels_of_json
from segtrain.dataset.folder_multilabel import folder_multilabel, multilabel_labels
from segtrain.errors import UserError
from segtrain.planes import unpack
from segtrain.prepare.recognition import recognise

SIZE = (6, 8)


def put(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def plane(*columns, value=255):
    mask = np.zeros(SIZE, np.uint8)
    mask[:, list(columns)] = value
    return mask


def read(source, labels, index=0):
    _, packed = source.read(index)
    masks, valid = unpack(torch.from_numpy(packed), labels.num_classes)
    return {n: m.numpy() for n, m in zip(labels.names, masks, strict=True)}, valid.numpy()


@pytest.fixture
def images(tmp_path):
    for name in ("a", "b"):
        put(tmp_path / "images" / f"{name}.png", np.zeros((*SIZE, 3), np.uint8))
    for split, name in (("train", "a"), ("val", "b")):
        (tmp_path / f"{split}.txt").write_text(f"{name}\n")
    return tmp_path


@pytest.fixture
def two_classes(images):
    put(images / "masks" / "cell" / "a.png", plane(0, 1, 2))
    put(images / "masks" / "nucleus" / "a.png", plane(1, 2, 3, value=1))
    put(images / "masks" / "void" / "a.png", plane(7))
    put(images / "masks" / "cell" / "b.png", plane(5))
    return images


def chosen(root):
    overrides = dict(o.split("=", 1) for o in recognise(str(root), False, True).overrides)
    root = overrides["dataset.source.root"]
    labels = multilabel_labels(root)
    return overrides["dataset"], root, labels


def test_a_mask_a_class_keeps_overlaps(two_classes):
    labels = multilabel_labels(str(two_classes))
    assert labels.names == ("cell", "nucleus")
    masks, valid = read(folder_multilabel(str(two_classes), "train", labels, None), labels)
    assert (masks["cell"] == (plane(0, 1, 2) > 0)).all()
    assert (masks["nucleus"] == (plane(1, 2, 3) > 0)).all()
    assert (valid == (plane(7) == 0)).all()


def test_a_class_without_a_mask_is_not_in_the_image(two_classes):
    labels = multilabel_labels(str(two_classes))
    source = folder_multilabel(str(two_classes), "val", labels, None)
    masks, _ = read(source, labels)
    assert not masks["nucleus"].any()
    assert source.class_counts(0).tolist() == [6, 0, 0]


def test_a_void_value(images):
    for name in ("a", "b"):
        put(images / "masks" / f"{name}.png", plane(0, value=1) + plane(1))
    labels = multilabel_labels(str(images))
    masks, valid = read(folder_multilabel(str(images), "train", labels, 255), labels)
    assert (masks["object"] == (plane(0) > 0)).all()
    assert (valid == (plane(1) == 0)).all()


def test_an_image_without_any_mask_is_refused(two_classes):
    (two_classes / "masks" / "cell" / "b.png").unlink()
    labels = multilabel_labels(str(two_classes))
    with pytest.raises(UserError, match="no mask b.png of any class"):
        folder_multilabel(str(two_classes), "val", labels, None)


@pytest.mark.parametrize("layout", ["{label}/{name}", "{name}/{label}", "{name}_{label}"])
def test_layouts_of_others_keep_overlaps(tmp_path, monkeypatch, layout):
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))
    for split in ("train", "val"):
        put(tmp_path / "set" / split / "images" / "a.png", np.zeros((*SIZE, 3), np.uint8))
        for label, mask in (("cell", plane(0, 1)), ("nucleus", plane(1, 2))):
            file = layout.format(label=label, name="a")
            put(tmp_path / "set" / split / "masks" / f"{file}.png", mask)
    dataset, root, labels = chosen(tmp_path / "set")
    assert (dataset, labels.names) == ("folder_multilabel", ("cell", "nucleus"))
    masks, _ = read(folder_multilabel(root, "val", labels, None), labels)
    assert (masks["cell"] & masks["nucleus"] == (plane(1) > 0)).all()


def test_a_mask_of_0_and_255_is_one_class(images, monkeypatch, tmp_path):
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))
    for name in ("a", "b"):
        put(images / "masks" / f"{name}.png", plane(2, 3))
    _, root, labels = chosen(images)
    masks, valid = read(folder_multilabel(root, "train", labels, None), labels)
    assert list(masks) == ["object"]
    assert (masks["object"] == (plane(2, 3) > 0)).all()
    assert valid.all()


def test_objects_of_a_coco_json_overlap_by_class(images):
    def box(number, category, left, right, crowd=0):
        height = SIZE[0]
        polygon = [[left, 0, right, 0, right, height, left, height]]
        counts = {"size": list(SIZE), "counts": [left * height, (right - left) * height,
                                                (SIZE[1] - right) * height]}  # fmt: skip
        return {"id": number, "image_id": 1, "category_id": category, "iscrowd": crowd,
                "segmentation": counts if crowd else polygon, "area": (right - left) * height,
                "bbox": [left, 0, right - left, height]}  # fmt: skip

    content = {
        "images": [{"id": n, "file_name": f"{name}.png", "height": SIZE[0], "width": SIZE[1]}
                   for n, name in enumerate("ab", 1)],
        "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [box(1, 3, 0, 3), box(2, 9, 2, 5), box(3, 9, 4, 7, crowd=1)],
    }  # fmt: skip
    (images / "all.json").write_text(json.dumps(content))
    labels = labels_of_json(str(images), None, "all.json")
    splits = [
        coco_json_multilabel(str(images), split, labels, None, "all.json", 0.5, 0)
        for split in ("train", "val")
    ]
    (source,) = [source for source in splits if source.name(0).endswith("a.png")]
    masks, valid = read(source, labels)
    assert (masks["cat"] == (plane(0, 1, 2) > 0)).all()
    assert (masks["dog"] == (plane(2, 3, 4) > 0)).all()
    assert (valid == (plane(5, 6) == 0)).all()
