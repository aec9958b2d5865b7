import numpy as np
import pytest
from conftest import write_pair
from PIL import Image
from scipy.io import savemat

from segtrain.dataset.coco_stuff import coco_stuff, coco_stuff_10k
from segtrain.dataset.labels import COCO_STUFF, COCO_STUFF_10K
from segtrain.errors import UserError

USED = [raw for raw in range(182) if raw in COCO_STUFF.raw_to_train]


@pytest.mark.parametrize("masks", ["stuffthingmaps", "annotations"])
@pytest.mark.parametrize("images", [".", "images"])
def test_164k_in_the_official_layouts(tmp_path, images, masks):
    raw = np.full((20, 30), 255, np.uint8)
    raw.flat[: len(USED)] = USED
    write_pair(tmp_path, "000000000001", raw)
    (tmp_path / "images").rename(tmp_path / "downloaded")
    for folder, name in ((images, "downloaded"), (masks, "masks")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / name).rename(tmp_path / folder / "val2017")
    source = coco_stuff(str(tmp_path), "val2017", COCO_STUFF)
    _, mask = source.read(0)
    assert mask.flat[: len(USED)].tolist() == list(range(171))
    assert (mask.flat[len(USED) :] == 255).all()
    with pytest.raises(UserError, match="no images or no maps of split 'train2017'"):
        coco_stuff(str(tmp_path), "train2017", COCO_STUFF)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
def test_10k_in_the_official_layout(tmp_path, dtype):
    labels = np.zeros((20, 30), dtype)
    labels.flat[: len(USED)] = np.array(USED) + 1
    write_pair(tmp_path, "COCO_train2014_000000000077", np.zeros((20, 30), np.uint8))
    (tmp_path / "annotations").mkdir()
    savemat(
        tmp_path / "annotations/COCO_train2014_000000000077.mat",
        {"S": labels, "names": "x", "captions": "y", "regionLabelsStuff": [1, 2]},
    )
    (tmp_path / "imageLists").mkdir()
    (tmp_path / "imageLists/test.txt").write_text("COCO_train2014_000000000077\n")
    _, mask = coco_stuff_10k(str(tmp_path), "test", COCO_STUFF_10K).read(0)
    assert mask.flat[: len(USED)].tolist() == list(range(171))
    assert (mask.flat[len(USED) :] == 255).all()
    with pytest.raises(UserError, match=r"train\.txt: no such split list; found: test"):
        coco_stuff_10k(str(tmp_path), "train", COCO_STUFF_10K)


@pytest.mark.parametrize(("split", "count"), [("train2017", 13), ("val2017", 8)])
def test_real_maps(real_data, split, count):
    source = coco_stuff(str(real_data / "coco"), split, COCO_STUFF)
    assert len(source) == count
    for index in range(count):
        _, mask = source.read(index)
        raw = np.asarray(Image.open(source.pairs[index].mask)).astype(int)
        unused = np.array([11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90])
        expected = np.where(raw == 255, 255, raw - (unused < raw[..., None]).sum(-1))
        assert (mask == expected).all()
