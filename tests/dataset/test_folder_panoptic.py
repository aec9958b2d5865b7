"""Panoptic data of one's own: labels, splits, and what is wrong with it."""

import json

import numpy as np
import pytest
from panoptic_sets import (
    CATEGORIES,
    CLASSES,
    MAP,
    NUMBERS,
    SEGMENTS,
    read_slowly,
    write_png,
    write_set,
)
from PIL import Image

from segtrain.dataset.folder_panoptic import folder_panoptic, panoptic_labels
from segtrain.errors import UserError
from segtrain.label_set import VOID
from segtrain.segments import MOST


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))
    write_set(tmp_path / "set", {"train": ["a", "b"], "val": ["c"]})
    return tmp_path / "set"


def split_of(root, split="train", annotations=None, masks=None, share=0.2):
    labels = panoptic_labels(str(root), annotations)
    return folder_panoptic(str(root), split, labels, None, masks, annotations, share, 0)


def edit(root, change, split="train"):
    """Changes the JSON of a split."""
    path = root / f"{split}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_classes_are_the_files_categories(root):
    labels = panoptic_labels(str(root), None)
    assert labels.names == ("cat", "grass", "dog")
    assert labels.things == {0, 2}
    assert dict(labels.raw_to_train) == {7: 0, 3: 1, 9: 2}
    assert labels.palette[:2] == ((220, 20, 60), (60, 20, 220))


def test_pixels_are_what_json_and_png_say(root):
    source = split_of(root)
    assert len(source) == 2
    image, mask = source.read(1)
    assert image.shape == mask.shape == (3, 4, 3)
    classes, numbers = read_slowly(mask)
    assert np.array_equal(classes, CLASSES)
    assert np.array_equal(numbers, NUMBERS)
    assert source.class_counts(0).tolist() == [8, 2, 1, 1]
    listing = source.listing()
    assert sorted(path.rpartition("/")[2] for path in listing.files) == [
        "a.jpg", "a.png", "b.jpg", "b.png"
    ]  # fmt: skip
    assert not listing.faults
    assert not listing.notes


def test_one_file_is_shared_out(root):
    (root / "val.json").unlink()
    names = []
    for split in ("train", "val"):
        source = split_of(root, split, share=0.5)
        assert len(source) == 1
        names.append(source.name(0))
    assert sorted(names) == ["images/a.jpg", "images/b.jpg"]


def test_files_may_be_called_and_lie_otherwise(root):
    (root / "train.json").rename(root / "mine.json")
    (root / "train").rename(root / "colours")
    named = {"train": "mine.json", "val": "val.json"}
    source = split_of(root, annotations=named, masks="colours")
    assert np.array_equal(read_slowly(source.read(0)[1])[0], CLASSES)
    with pytest.raises(UserError, match=r"no folder with its PNGs.*dataset\.source\.masks"):
        split_of(root, annotations=named)


def test_texts_as_ids_are_numbered(root):
    def spell(content):
        for entry in content["categories"]:
            entry["id"] = f"c{entry['id']}"
        for annotation in content["annotations"]:
            annotation["image_id"] = f"i{annotation['image_id']}"
            for segment in annotation["segments_info"]:
                segment["category_id"] = f"c{segment['category_id']}"
        for image in content["images"]:
            image["id"] = f"i{image['id']}"

    for split in ("train", "val"):
        edit(root, spell, split)
    assert np.array_equal(read_slowly(split_of(root).read(0)[1])[1], NUMBERS)


def first(content):
    return content["annotations"][0]["segments_info"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: first(c).append(SEGMENTS[0]), r"segment id 258 stands 2 times \(a\.jpg\)"),
        (lambda c: first(c)[0].update(id=0), "segment id 0 is not in 1"),
        (lambda c: first(c)[0].update(id=2**24), "segment id 16777216 is not in 1"),
        (lambda c: first(c)[0].update(category_id=4), "segment 258 has category id 4"),
        (lambda c: first(c)[0].update(iscrowd=2), "segment 258 has iscrowd 2"),
        (lambda c: c["images"].append(c["images"][0]), "image id 1 stands 2 times"),
        (lambda c: c["annotations"].append(c["annotations"][0]), "image id 1 has more than one"),
        (lambda c: c["annotations"].pop(0), r"image a\.jpg has no annotation"),
        (lambda c: c["annotations"][0].update(image_id=8), r"annotation a\.png is of no listed"),
        (lambda c: c["annotations"][0].pop("segments_info"), "not a panoptic annotation file"),
        (lambda c: c.pop("annotations"), "no list of annotations"),
        (lambda c: c["images"][0].update(file_name="z.jpg"), r"z\.jpg: no such image file"),
        (lambda c: c["categories"][0].update(name="cow"), "category 7 'cow' is none of the set's"),
        (lambda c: first(c).extend({"id": 100 + i, "category_id": 7} for i in range(MOST)),
         rf"{MOST + 3} instances are more than {MOST}"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_json_is_told(root, change, message):
    labels = panoptic_labels(str(root), None)
    edit(root, change)
    with pytest.raises(UserError, match=message):
        folder_panoptic(str(root), "train", labels, None, None, None, 0.2, 0)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.where(MAP == 5, 6, MAP), r"a\.png: shows a segment 6, which has no entry"),
        (np.where(MAP == 70000, 258, MAP), r"a\.png: shows no pixel of segment 70000, which has"),
        (MAP[:2], r"a\.png: the mask is 4x2 but .*train\.json says 4x3"),
    ],
)
def test_what_does_not_fit_the_png_is_told_with_file_and_id(root, ids, message):
    write_png(root / "train/a.png", ids)
    with pytest.raises(UserError, match=message):
        split_of(root).read(0)


def test_segments_of_area_zero_are_left_out_and_told(root):
    edit(root, lambda c: first(c).append({"id": 77, "category_id": 7, "area": 0}))
    source = split_of(root)
    assert [note.rpartition(": ")[2] for note in source.listing().notes] == [
        "segment 77 of a.jpg has area 0"
    ]
    assert np.array_equal(read_slowly(source.read(0)[1])[1], NUMBERS)


def test_a_damaged_png_and_a_missing_one_are_named(root):
    (root / "train/a.png").write_bytes((root / "train/a.png").read_bytes()[:40])
    (root / "train/b.png").unlink()
    for index, name in enumerate("ab"):
        with pytest.raises(UserError, match=rf"{name}\.png"):
            split_of(root).read(index)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["categories"][0].pop("isthing"), "category 7 'cat' has isthing None"),
        (lambda c: c.update(categories=[]), "0 categories, expected 1 to 254"),
        (lambda c: c["categories"].append(CATEGORIES[0]), "category id 7 stands 2 times"),
    ],
)
def test_categories_that_are_no_classes_are_told(root, change, message):
    edit(root, change)
    with pytest.raises(UserError, match=message):
        panoptic_labels(str(root), None)


def test_an_image_without_segments_is_void(root):
    edit(root, lambda c: c["annotations"][0].update(segments_info=[]))
    write_png(root / "train/a.png", np.zeros_like(MAP))
    assert (read_slowly(split_of(root).read(0)[1])[0] == VOID).all()


def test_a_grey_png_of_small_ids_is_read(root):
    """As tools write it that save memory: palettes and grey have the same colours."""
    grey = np.where(MAP == 9, 9, 0).astype(np.uint8)
    edit(root, lambda c: c["annotations"][0].update(
        segments_info=[{"id": 9 * 0x010101, "category_id": 3}]))  # fmt: skip
    Image.fromarray(grey).save(root / "train/a.png")
    assert (read_slowly(split_of(root).read(0)[1])[0] == np.where(grey, 1, VOID)).all()
