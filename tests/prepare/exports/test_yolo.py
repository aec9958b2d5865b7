"""YOLO segmentation: layouts of its files, classes, and lines that are no outlines."""

import numpy as np
import pytest
from exporting import Converted, write, yolo

from segtrain.errors import UserError
from segtrain.prepare.exports.recognise import read_export

pytestmark = pytest.mark.usefixtures("own_cache")


def test_yolo(tmp_path):
    done = Converted(yolo(tmp_path / "in"), tmp_path / "out")
    assert done.export.kind == "YOLO segmentation"
    assert done.splits == {"train": ["train/a.jpg"], "val": ["val/a.jpg"]}
    assert done.found("train/a.jpg")[0] == ("bolt", 600)
    assert done.found("train/a.jpg")[1][0] == "nut"
    assert done.found("val/a.jpg") == []
    mask = done.masks["train/a.jpg"]
    assert (mask[30:, 20:40] == 1).all()
    assert set(np.unique(mask)) == {0, 1, 2}


@pytest.mark.parametrize(
    "yaml",
    [
        "train: ../images/train\nval: ../images/val\nnc: 2\nnames: ['bolt', 'nut']\n",
        "path: ../elsewhere\ntrain: [images/train]\nval: images/val\nnames:\n  0: bolt\n  1: nut\n",
        "path: .\ntrain: train.txt\nval: images/val\ntest:\nnames: [bolt, nut]\n",
        "path: .\ntrain: moved.txt\nval: images/val\nnames: {0: bolt, 1: nut}\n",
    ],
)
def test_yolo_in_other_spellings(tmp_path, yaml):
    root = yolo(tmp_path / "in", yaml)
    write(root / "train.txt", "./images/train/a.jpg\n")
    write(root / "moved.txt", "data/images/train/a.jpg\n")
    done = Converted(root, tmp_path / "out")
    assert done.classes == ("bolt", "nut")
    assert [name for name, _ in done.found("train/a.jpg")] == ["bolt", "nut"]


def test_yolo_of_label_studio(tmp_path):
    root = yolo(tmp_path / "in")
    (root / "data.yaml").unlink()
    write(root / "classes.txt", "bolt\nnut\n")
    done = Converted(root, tmp_path / "out")
    assert len(done.found("train/a.jpg")) == 2
    assert {split: len(names) for split, names in done.splits.items()} == {"train": 1, "val": 1}


def test_yolo_says_what_it_drops(tmp_path):
    root = yolo(tmp_path / "in")
    lines = ["0 0.5 0.5 0.2 0.2", "0 0 0 1 0 1", "x 1 2", "0.5 0 0 1 0 1 z",
             "1 0.2 0.2 0.2 0.2 0.2 0.2", "1 0 0 1 0 1.004 1"]  # fmt: skip
    write(root / "labels/train/a.txt", "\n".join(lines))
    done = Converted(root, tmp_path / "out")
    assert [name for name, _ in done.found("train/a.jpg")] == ["nut"]
    places = [place for places in done.export.dropped.values() for place in places]
    for line in range(1, 6):
        assert any(f"a.txt line {line}" in place for place in places), line
    assert len(places) == 5
    assert list(done.export.noted.values()) == [["val/a.jpg"]]
    write(root / "labels/train/a.txt", "\n".join(
        ["7 0 0 1 0 1 1", "0 0 0 1 0 1 1", "-1 0 0 1 0 1 1", "0 0 0 nan 0 1 1",
         "0 10 10 40 10 40 40", "0 0 0 1 0 1.2 1", "0.5 0 0 1 0 1 1"]
    ))  # fmt: skip
    with pytest.raises(UserError) as refused:
        read_export(root, None)
    for text in ("line 1: class 7, expected 0 to 1 (bolt, nut)", "line 3: class -1", "line 4: nan",
                 "line 5: 10.0, expected 0 to 1", "line 6: 1.2", "and 1 more"):  # fmt: skip
        assert text in str(refused.value)
