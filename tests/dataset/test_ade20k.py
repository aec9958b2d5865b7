import csv

import numpy as np
import pytest
from conftest import write_pair
from PIL import Image

from segtrain.dataset.ade20k import ade20k
from segtrain.dataset.labels import ADE20K
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
