"""Panoptic predictions: segments, files in COCO's panoptic format, and how they are shown."""

import json

import numpy as np
import pytest
import torch
from fragments import Fragment, require_still
from PIL import Image
from street import CAR, ROAD, SIZE, SKY, STREET, Street, prediction, street

from segtrain.errors import UserError
from segtrain.predictor import Predictor, Settings


def predictor(max_pixels=4_000_000) -> Predictor:
    settings = Settings("cpu", "32-true", 0.5, max_pixels, None)
    return Predictor(torch.nn.Identity(), Street(), STREET, {"experiment": "x"}, settings, None)


def test_segments_are_those_of_the_map():
    found = prediction()
    numbers = found.map
    assert [(one.name, one.is_thing) for one in found.segments] == [
        ("sky", False), ("road", False), ("car", True), ("car", True)
    ]  # fmt: skip
    for one in found.segments:
        assert np.array_equal(one.mask, numbers == one.number)
        assert one.pixels == one.mask.sum()
        assert np.array_equal(found.mask(one.number), one.mask)
        x, y, width, height = one.box
        inside = np.zeros(SIZE, bool)
        inside[y : y + height, x : x + width] = True
        assert not (one.mask & ~inside).any()
        assert all(line.any() for line in (one.mask[y], one.mask[y + height - 1],
                                           one.mask[:, x], one.mask[:, x + width - 1]))  # fmt: skip
    assert np.array_equal(found.mask("car"), (numbers == 3) | (numbers == 4))
    assert not found.mask("person").any()
    total = sum(found.shares.values())
    assert total == pytest.approx((numbers > 0).mean())
    assert found.shares["car"] == pytest.approx(found.mask("car").mean())
    assert found.names == tuple(sorted(found.shares, key=found.shares.get, reverse=True))


def test_segments_without_a_pixel_are_left_out():
    found = prediction()
    found.map[found.map == 3] = 1
    assert [one.number for one in found.segments] == [1, 2, 4]
    assert len(found.summary()["segments_info"]) == 3


@pytest.mark.parametrize(("which", "message"), [(0, "1 to 4"), (5, "1 to 4"), ("cat", "car")])
def test_what_is_not_there_is_said(which, message):
    with pytest.raises(UserError, match=message):
        prediction().mask(which)


def test_files_are_coco_s_panoptic_format(tmp_path):
    found = prediction()
    files = found.save(tmp_path, "a", classes=["car", "person"], about={"model": "m"})
    assert {file.name for file in files} == {
        "a_panoptic.png", "a_overlay.jpg", "a.json", "a_car_mask.png", "a_car_cutout.png",
        "a_person_mask.png",
    }  # fmt: skip
    assert all(file.is_file() for file in files)
    picture = Image.open(tmp_path / "a_panoptic.png")
    assert picture.mode == "RGB"
    red, green, blue = np.moveaxis(np.asarray(picture).astype(int), 2, 0)
    assert np.array_equal(red + 256 * green + 65536 * blue, found.map)
    said = json.loads((tmp_path / "a.json").read_text())
    assert (said["task"], said["model"], said["width"], said["height"]) == ("panoptic", "m", 60, 40)
    listed = {entry["id"]: entry for entry in said["segments_info"]}
    assert sorted(listed) == np.unique(found.map[found.map > 0]).tolist()
    assert [listed[n]["category_id"] for n in (1, 2, 3, 4)] == [187, 100, 3, 3]
    assert [listed[n]["isthing"] for n in (1, 2, 3, 4)] == [0, 0, 1, 1]
    assert listed[3]["area"] == (found.map == 3).sum()
    assert listed[3]["score"] == pytest.approx(0.95)
    mask = np.asarray(Image.open(tmp_path / "a_car_mask.png"))
    assert np.array_equal(mask == 255, found.mask("car"))


def test_numbers_of_two_bytes_and_more_are_kept(tmp_path):
    found = prediction()
    found.map[found.map == 4] = 70000
    red, green, blue = np.moveaxis(np.asarray(found.id_image()).astype(int), 2, 0)
    assert np.array_equal(red + 256 * green + 65536 * blue, found.map)


def test_stuff_has_its_colour_and_things_differ():
    size = (200, 300)
    shown = prediction(size)
    overlay = np.asarray(shown.overlay(legend=False)).astype(int)
    scale = overlay.shape[1] / size[1]

    def at(row, column):
        return overlay[int(row * scale), int(column * scale)]

    def over_grey(colour):
        return pytest.approx(0.55 * np.array(colour) + 0.45 * 120, abs=1)

    assert at(20, 200) == over_grey(STREET.palette[SKY])
    assert at(190, 20) == over_grey(STREET.palette[ROAD])
    assert at(60, 20) == over_grey(STREET.palette[CAR])
    assert np.abs(at(60, 20) - at(60, 140)).max() > 20  # the two cars
    nothing = overlay[: int(2 * scale) - 2, -int(3 * scale) :]
    assert np.abs(nothing - 120).max() <= 1
    assert shown.overlay().height > shown.overlay(legend=False).height
    assert [entry.text for entry in shown.entries()][-1].startswith("2 car ")


@pytest.mark.parametrize("shown", [prediction(), prediction((7, 9))])
def test_in_a_notebook(shown):
    fragment = Fragment(shown._repr_html_())
    require_still(fragment)
    assert repr(shown).startswith("<PanopticPrediction")
    assert "2 car" in repr(shown)


def test_large_pictures_are_looked_at_whole():
    image = np.zeros((80, 120, 3), np.uint8)
    found = predictor(max_pixels=40 * 60)(image)
    small = street()["map"].numpy()
    assert np.array_equal(found.map, np.kron(small, np.ones((2, 2), int)))
    assert found.map.dtype == np.int32
    assert [one.pixels for one in found.segments] == [
        4 * int((small == n).sum()) for n in (1, 2, 3, 4)
    ]


def test_there_are_no_probabilities():
    with pytest.raises(UserError, match="panoptic"):
        predictor().probabilities(np.zeros((9, 9, 3), np.uint8))
