"""Supervisely: shapes in pixels, holes, bitmaps, and the classes of the project."""

import base64
import json
import zlib

import pytest
from exporting import Converted, supervisely, write

from segtrain.prepare.exports.recognise import read_export

pytestmark = pytest.mark.usefixtures("own_cache")


def test_supervisely(tmp_path):
    done = Converted(supervisely(tmp_path / "in"), tmp_path / "out")
    assert done.classes == ("nut", "bolt")
    assert done.found("ds/img/a.jpg") == [("bolt", 600 - 30), ("nut", 300), ("nut", 4)]
    mask = done.masks["ds/img/a.jpg"]
    assert (mask[30:40, 20:40] == 2).all()
    assert (mask[40:45, 25:31] == 0).all()
    assert (mask[:15, :20] == 1).all()
    assert [mask[40 + i, 60 + i] for i in range(4)] == [1] * 4
    assert mask[40, 61] == 0
    dropped = {reason: len(places) for reason, places in done.export.dropped.items()}
    assert dropped == {
        "objects of type line, which cover no area": 1,
        "shapes that cannot be read": 1,
    }


def test_data_sets_are_splits(tmp_path):
    for split in ("train", "val"):
        supervisely(tmp_path / "in", f"{split}/ann/a.jpg.json")
    done = Converted(tmp_path / "in", tmp_path / "out")
    assert done.splits == {"train": ["train/img/a.jpg"], "val": ["val/img/a.jpg"]}


def test_bitmaps_that_inflate_without_end_are_not_read(tmp_path):
    root = supervisely(tmp_path / "in")
    content = json.loads((root / "ds/ann/a.jpg.json").read_text())
    bomb = base64.b64encode(zlib.compress(bytes(1 << 26))).decode()
    content["objects"][2]["bitmap"]["data"] = bomb
    write(root / "ds/ann/a.jpg.json", content)
    assert len(read_export(root, None).dropped["shapes that cannot be read"]) == 2
