"""COCO panoptic: two real images, and the layouts that its archives and other tools make."""

import json

import numpy as np
import pytest
from PIL import Image

from segtrain.dataset.coco_panoptic import CocoPanoptic
from segtrain.dataset.joined import Joined
from segtrain.dataset.labels import COCO
from segtrain.dataset.panoptic_labels import COCO_PANOPTIC
from segtrain.errors import UserError
from segtrain.label_set import VOID
from segtrain.segments import CROWD


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def real(real_data):
    return real_data / "coco_panoptic"


@pytest.fixture
def linked(real, tmp_path):
    """The real set in a folder that can be changed, with the images beside `annotations/`."""
    (tmp_path / "set/annotations").mkdir(parents=True)
    for name in ("panoptic_val2017", "panoptic_val2017.json"):
        (tmp_path / "set/annotations" / name).symlink_to(real / "annotations" / name)
    (tmp_path / "set/val2017").symlink_to(real / "images/val2017")
    return tmp_path / "set"


def test_classes_are_the_files_in_their_order(real):
    content = json.loads((real / "annotations/panoptic_val2017.json").read_text())
    categories = content["categories"]
    assert COCO_PANOPTIC.names == tuple(entry["name"] for entry in categories)
    assert [list(colour) for colour in COCO_PANOPTIC.palette] == [c["color"] for c in categories]
    assert list(COCO_PANOPTIC.raw_to_train) == [entry["id"] for entry in categories]
    assert COCO_PANOPTIC.things == {i for i, entry in enumerate(categories) if entry["isthing"]}
    assert COCO_PANOPTIC.names[:80] == COCO.names
    assert COCO_PANOPTIC.num_classes == 133


def test_every_pixel_of_the_real_images(real):
    source = CocoPanoptic(str(real), "val2017", COCO_PANOPTIC)
    content = json.loads((real / "annotations/panoptic_val2017.json").read_text())
    order = [entry["id"] for entry in content["categories"]]
    annotations = sorted(content["annotations"], key=lambda entry: entry["image_id"])
    assert len(source) == len(annotations) == 2
    for index, annotation in enumerate(annotations):
        path = real / "annotations/panoptic_val2017" / annotation["file_name"]
        colours = np.asarray(Image.open(path)).astype(int)
        ids = colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2]
        classes, numbers, nth = np.full(ids.shape, VOID), np.zeros(ids.shape, int), 0
        for segment in annotation["segments_info"]:
            train, own = order.index(segment["category_id"]), ids == segment["id"]
            classes[own] = train
            if segment["iscrowd"]:
                numbers[own] = CROWD
            elif train < 80:
                nth += 1
                numbers[own] = nth
        image, mask = source.read(index)
        assert image.shape == mask.shape
        assert source.name(index) == f"val2017/{annotation['file_name'][:-4]}.jpg"
        assert np.array_equal(mask[..., 0], classes)
        assert np.array_equal(mask[..., 1] + 256 * mask[..., 2].astype(int), numbers)
        counts = [np.count_nonzero(classes == value) for value in (*range(133), VOID)]
        assert source.class_counts(index).tolist() == counts


def test_other_places_of_images_and_masks(real, linked):
    (linked / "annotations/panoptic_val2017").rename(linked / "panoptic_val2017")
    moved = CocoPanoptic(str(linked), "val2017", COCO_PANOPTIC)
    official = CocoPanoptic(str(real), "val2017", COCO_PANOPTIC)
    for ours, theirs in zip(moved.read(1), official.read(1), strict=True):
        assert np.array_equal(ours, theirs)
    (linked / "panoptic_val2017").unlink()
    with pytest.raises(UserError, match=r"panoptic_val2017: no such folder.*dataset=coco_panoptic"):
        CocoPanoptic(str(linked), "val2017", COCO_PANOPTIC)


def test_listing_names_every_file_and_what_lies_beside(real):
    source = CocoPanoptic(str(real), "val2017", COCO_PANOPTIC)
    listing = Joined([source, source]).listing()
    assert len(set(listing.files)) == 4
    assert {pattern.rpartition("/")[2] for pattern in listing.patterns} == {"*.jpg", "*.png"}
    assert not listing.faults


def test_a_split_without_public_labels_is_void(linked):
    (linked / "val2017").rename(linked / "test2017")
    content = json.loads((linked / "annotations/panoptic_val2017.json").read_text())
    bare = {"images": content["images"], "categories": content["categories"]}
    (linked / "annotations/image_info_test-dev2017.json").write_text(json.dumps(bare))
    source = CocoPanoptic(str(linked), "test-dev2017", COCO_PANOPTIC)
    image, mask = source.read(0)
    assert not source.labelled
    assert mask.shape == image.shape
    assert (mask == VOID).all()
    assert len(source.listing().files) == 2


def test_other_categories_and_splits_are_refused(linked):
    path = linked / "annotations/panoptic_val2017.json"
    content = json.loads(path.read_text())
    content["categories"][0]["name"] = "llama"
    path.unlink()
    path.write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=r"category 1 is 'llama', COCO's is 'person'.*folder_panopt"
    ):
        CocoPanoptic(str(linked), "val2017", COCO_PANOPTIC)
    with pytest.raises(UserError, match="no split 'val'; expected one of train2017, val2017"):
        CocoPanoptic(str(linked), "val", COCO_PANOPTIC)
