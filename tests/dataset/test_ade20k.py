import csv

import numpy as np
import pytest
from conftest import write_pair
from PIL import Image

from segtrain.dataset.ade20k import Ade20kPanoptic, ade20k
from segtrain.dataset.labels import ADE20K
from segtrain.dataset.panoptic_labels import ADE20K_PANOPTIC, ADE20K_THINGS
from segtrain.errors import UserError


@pytest.mark.parametrize("inside", [".", "ADEChallengeData2016"])
def test_official_layout(tmp_path, inside):
    raw = np.zeros((20, 30), np.uint8)
    raw.flat[:150] = range(1, 151)
    write_pair(tmp_path / inside, "ADE_val_00000001", raw)
    for folder, name in (("images", "images"), ("masks", "annotations")):
        moved = (tmp_path / inside / folder).rename(tmp_path / "moved")
        (tmp_path / inside / name).mkdir()
        moved.rename(tmp_path / inside / name / "validation")
    source = ade20k(str(tmp_path), "validation", ADE20K)
    _, mask = source.read(0)
    assert mask.flat[:150].tolist() == list(range(150))
    assert (mask.flat[150:] == 255).all()
    assert source.name(0) == "images/validation/ADE_val_00000001.jpg"
    with pytest.raises(UserError, match=r"annotations/training: no such folder.*dataset=ade20k"):
        ade20k(str(tmp_path), "training", ADE20K)
    (tmp_path / inside / "annotations" / "training").mkdir()
    with pytest.raises(UserError, match="annotations/training: no annotations"):
        ade20k(str(tmp_path), "training", ADE20K)


@pytest.mark.parametrize(("split", "count"), [("training", 3), ("validation", 11)])
def test_real_pairs(real_data, split, count):
    source = ade20k(str(real_data / "ade20k"), split, ADE20K)
    assert len(source) == count
    for index in range(count):
        image, mask = source.read(index)
        raw = np.asarray(Image.open(source.pairs[index].mask)).astype(int)
        assert image.shape[:2] == raw.shape
        assert (mask == np.where(raw == 0, 255, raw - 1)).all()


def test_classes_are_those_of_the_real_list(real_data):
    """Its names are synonyms in turn, with semicolons between words."""
    with open(real_data / "ade20k" / "objectInfo150.csv") as file:
        for row in csv.DictReader(file):
            name = ADE20K.names[ADE20K.raw_to_train[int(row["Idx"])]]
            assert f";{name.replace(' ', ';')};" in f";{row['Name']};"


SEMANTIC = np.array([[1, 1, 3, 3, 0], [8, 8, 13, 13, 0], [1, 8, 13, 150, 149]], np.uint8)
# Red: bed 1, person 4, windowpane 2; green: the instance.
CATEGORIES = np.array([[0, 0, 0, 0, 0], [1, 1, 4, 0, 0], [1, 0, 4, 0, 2]])
INSTANCES = np.array([[0, 0, 0, 0, 0], [1, 1, 200, 0, 0], [2, 0, 200, 0, 3]])


@pytest.fixture(params=["ADEChallengeData2016/annotations_instance", "annotations_instance"])
def panoptic(request, tmp_path):
    """Stand-ins in the official layout; the folder of instances where its archive is unpacked."""
    base, folder = tmp_path / "ADEChallengeData2016", tmp_path / request.param / "validation"
    for place in (base / "images/validation", base / "annotations/validation", folder):
        place.mkdir(parents=True)
    Image.fromarray(np.zeros((3, 5, 3), np.uint8)).save(base / "images/validation/a.jpg")
    Image.fromarray(SEMANTIC).save(base / "annotations/validation/a.png")
    write_instances(folder / "a.png", CATEGORIES, INSTANCES)
    return tmp_path, folder / "a.png"


def write_instances(path, categories, instances):
    channels = np.stack([categories, instances, np.zeros_like(instances)], 2)
    Image.fromarray(channels.astype(np.uint8)).save(path)


def test_panoptic_stuff_is_semantic_and_things_are_instances(panoptic):
    root, path = panoptic
    source = Ade20kPanoptic(str(root), "validation", ADE20K_PANOPTIC)
    image, mask = source.read(0)
    assert image.shape == (3, 5, 3)
    # Wall 0, sky 2, bed 7, person 12, windowpane 8; a bed and a person that no instance covers are
    # void, as the clock and the flag are.
    expected = [[0, 0, 2, 2, 255], [7, 7, 12, 255, 255], [7, 255, 12, 255, 8]]
    assert mask[..., 0].tolist() == expected
    assert (mask[..., 1] == INSTANCES).all()
    assert not mask[..., 2].any()
    assert source.class_counts(0)[[0, 2, 7, 12, 8, 150]].tolist() == [2, 2, 3, 2, 1, 5]
    assert str(path) in source.listing().files
    assert len(source.listing().files) == 3


def test_panoptic_has_100_things():
    assert len(ADE20K_PANOPTIC.things) == len(ADE20K_THINGS) == 100
    names = {ADE20K_PANOPTIC.names[train] for train in ADE20K_PANOPTIC.things}
    assert {"bed", "person", "flag", "car"} <= names
    assert not {"wall", "sky", "floor", "road"} & names


@pytest.mark.parametrize(
    ("categories", "instances", "message"),
    [
        (np.where(CATEGORIES == 4, 101, CATEGORIES), INSTANCES, "instances of category 101, expe"),
        (np.where(CATEGORIES == 4, 0, CATEGORIES), INSTANCES, "instances of category 0, expected"),
        (CATEGORIES, np.where(INSTANCES, 9, 0), "instance 9 is of several categories"),
        (CATEGORIES[:2], INSTANCES[:2], "the mask is 5x2 but its image"),
    ],
)
def test_panoptic_faults_are_named(panoptic, categories, instances, message):
    root, path = panoptic
    write_instances(path, categories, instances)
    source = Ade20kPanoptic(str(root), "validation", ADE20K_PANOPTIC)
    with pytest.raises(UserError, match=rf"a\.png: {message}"):
        source.read(0)


def test_panoptic_says_what_to_fetch(panoptic):
    root, path = panoptic
    path.unlink()
    path.parent.rmdir()
    with pytest.raises(UserError, match=r"annotations_instance\.tar is expected"):
        Ade20kPanoptic(str(root), "validation", ADE20K_PANOPTIC)
