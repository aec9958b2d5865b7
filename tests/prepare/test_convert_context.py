"""Conversion of both forms of PASCAL-Context's annotations, and reading the result."""

import json

import numpy as np
import pytest
from conftest import write_pair
from faults import largest_file
from PIL import Image
from pycocotools import mask as rle
from scipy.io import savemat

from segtrain.dataset.context import LISTS, MASKS, context
from segtrain.dataset.labels import CONTEXT, CONTEXT_59, CONTEXT_CLASSES
from segtrain.errors import UserError
from segtrain.prepare.context import OTHER_NAMES, convert

NAMES = ("2008_000002", "2008_000003")


def label_map(seed):
    """Every one of the 459 labels, and 0."""
    return np.random.default_rng(seed).permutation(460).reshape(20, 23).astype(np.uint16)


@pytest.fixture
def tree(tmp_path):
    """VOC 2010 with one training and one validation image."""
    base = tmp_path / "VOCdevkit" / "VOC2010"
    for name in NAMES:
        write_pair(base, name, np.zeros((20, 23), np.uint8))
    (base / "images").rename(base / "JPEGImages")
    (base / "ImageSets/Main").mkdir(parents=True)
    for split, name in zip(("train", "val"), NAMES, strict=True):
        (base / f"ImageSets/Main/{split}.txt").write_text(f"{name}\n")
    return tmp_path


def add_matlab(root):
    (root / "trainval").mkdir()
    for seed, name in enumerate(NAMES):
        savemat(root / f"trainval/{name}.mat", {"LabelMap": label_map(seed)})


def other_name(name):
    return {value: key for key, value in OTHER_NAMES.items()}.get(name, name)


def expected(raw, background):
    lookup = np.zeros(460, int) if background else np.full(460, 255)
    for train_id, label in enumerate(CONTEXT_CLASSES):
        lookup[label] = train_id + background
    return lookup[raw]


def test_from_matlab_files(tree):
    with pytest.raises(UserError, match="segtrain prepare dataset=context"):
        context(str(tree), "train", CONTEXT)
    with pytest.raises(UserError, match=r"neither trainval/\*\.mat nor trainval_merged\.json"):
        convert(tree)
    add_matlab(tree)
    assert convert(tree)
    assert not convert(tree)  # nothing is left to do
    for seed, split in enumerate(("train", "val")):
        for labels, background in ((CONTEXT, 1), (CONTEXT_59, 0)):
            image, mask = context(str(tree), split, labels).read(0)
            assert image.shape == (20, 23, 3)
            assert (mask == expected(label_map(seed), background)).all()
    png = Image.open(tree / "VOCdevkit/VOC2010" / MASKS / f"{NAMES[0]}.png")
    assert (np.asarray(png) == label_map(0)).all()


def code(mask):
    encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def test_from_the_merged_json(tree):
    first, second = np.zeros((20, 23), bool), np.zeros((20, 23), bool)
    first[:10], second[5:15, 5:] = True, True
    images = [
        {"image_id": 2008000000 + number, "file_name": f"2008_{number:06}.jpg", "phase": phase,
         "height": 20, "width": 23}
        for number, phase in ((2, "train"), (3, "val"), (9, "test"))
    ]  # fmt: skip
    content = {
        "images": images,
        "categories": [
            {"category_id": label, "name": other_name(name)}
            for label, name in CONTEXT_CLASSES.items()
        ],
        "annos_segmentation": [
            {"image_id": 2008000002, "category_id": 284, "segmentation": code(first)},
            {"image_id": 2008000002, "category_id": 397, "segmentation": code(second)},
        ],
    }
    path = tree / "trainval_merged.json"
    path.write_text(json.dumps(content))
    assert convert(tree)
    raw = np.zeros((20, 23), int)
    raw[first], raw[second] = 284, 397  # later ones lie over earlier ones
    assert (context(str(tree), "train", CONTEXT).read(0)[1] == expected(raw, 1)).all()
    assert (context(str(tree), "val", CONTEXT_59).read(0)[1] == 255).all()
    masks = tree / "VOCdevkit/VOC2010" / MASKS
    assert sorted(path.stem for path in masks.iterdir()) == list(NAMES)


def test_other_numbering_is_refused(tree):
    add_matlab(tree)
    (tree / "labels.txt").write_text("2: accordion\n")
    with pytest.raises(UserError, match="label 2 is 'accordion', expected 'aeroplane'"):
        convert(tree)
    names = {label: other_name(name) for label, name in CONTEXT_CLASSES.items()}
    (tree / "labels.txt").write_text("".join(f"{k}: {v}\n" for k, v in names.items()))
    assert convert(tree)


def test_real_label_list_is_ours(tree, real_data):
    add_matlab(tree)
    text = (real_data / "pascal_context/labels.txt").read_text()
    (tree / "labels.txt").write_text(text)
    assert len(text.split("\n")) >= 459
    assert convert(tree)


def test_damaged_files_are_named(tree):
    add_matlab(tree)
    (tree / f"trainval/{NAMES[1]}.mat").write_bytes(b"broken")
    with pytest.raises(UserError, match=rf"{NAMES[1]}\.mat: not a readable MATLAB file"):
        convert(tree)
    assert not (tree / "VOCdevkit/VOC2010" / MASKS).exists()
    (tree / "trainval").rename(tree / "away")
    (tree / "trainval_merged.json").write_text("{}")
    with pytest.raises(UserError, match="not PASCAL-Context's merged annotations"):
        convert(tree)


def test_a_conversion_whose_lists_are_gone_is_made_anew(tree):
    add_matlab(tree)
    assert convert(tree)
    lists = tree / "VOCdevkit/VOC2010" / LISTS
    (lists / "val.txt").unlink()
    assert convert(tree)
    assert (lists / "val.txt").read_text() == f"{NAMES[1]}\n"


def test_a_full_disk_leaves_nothing_of_a_conversion(tree):
    add_matlab(tree)
    before = set(tree.rglob("*"))
    with largest_file(100), pytest.raises(OSError, match="File too large"):
        convert(tree)
    assert set(tree.rglob("*")) == before
