"""VIA: shapes, which attribute is the class, and projects."""

import json

import numpy as np
import pytest
from exporting import Converted, via, write

from segtrain.errors import UserError
from segtrain.prepare.exports.recognise import read_export

pytestmark = pytest.mark.usefixtures("own_cache")


def test_via(tmp_path):
    done = Converted(via(tmp_path / "in"), tmp_path / "out")
    found = done.found("a.jpg")
    assert found[:2] == [("bolt", 600), ("nut", 300)]
    assert abs(found[2][1] - np.pi * 36) < 5
    assert abs(found[3][1] - np.pi * 50) < 5
    mask = done.masks["a.jpg"]
    assert (mask[30:, 20:40] == 1).all()
    assert mask[23, 60] == 2  # the ellipse stands upright
    assert mask[15, 68] == 0
    dropped = {reason: len(places) for reason, places in done.export.dropped.items()}
    assert dropped == {"regions that cover no area": 1, "shapes that cannot be read": 1}


@pytest.mark.parametrize("project", [True, False])
def test_projects_and_files_of_via_1(tmp_path, project):
    root = via(tmp_path / "in")
    content = json.loads((root / "via_region_data.json").read_text())
    if project:
        content = {"_via_settings": {}, "_via_img_metadata": content, "_via_attributes": {}}
    else:
        entry = content["a.jpg123"]
        entry["regions"] = {str(i): region for i, region in enumerate(entry["regions"])}
    write(root / "via_region_data.json", content)
    assert len(Converted(root, tmp_path / "out").found("a.jpg")) == 4


def test_the_class_among_several_attributes(tmp_path):
    root = via(tmp_path / "in")
    file = root / "via_region_data.json"
    text = file.read_text()
    file.write_text(text.replace('"kind":', '"colour": "red", "Class":'))
    assert Converted(root, tmp_path / "out").classes == ("bolt", "nut")
    file.write_text(text.replace('"kind":', '"colour": "red", "kind":'))
    with pytest.raises(UserError, match="attributes colour, kind, none of which is called class"):
        read_export(root, None)


def test_regions_without_any_attribute_are_of_one_class(tmp_path):
    root = via(tmp_path / "in")
    content = json.loads((root / "via_region_data.json").read_text())
    for region in content["a.jpg123"]["regions"]:
        region["region_attributes"] = {}
    write(root / "via_region_data.json", content)
    done = Converted(root, tmp_path / "out")
    assert done.classes == ("object",)
    assert list(done.export.noted.values()) == [["via_region_data.json"]]


def test_regions_without_a_class_are_told(tmp_path):
    root = via(tmp_path / "in")
    file = root / "via_region_data.json"
    file.write_text(file.read_text().replace('{"nut": true, "bolt": false}', "{}"))
    dropped = read_export(root, None).dropped
    assert dropped["shapes without a label"] == ["via_region_data.json: a.jpg region 2"]
