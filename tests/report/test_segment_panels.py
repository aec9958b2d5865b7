"""Panels of panoptic images: what is painted, striped and wrong; PQ of things and stuff apart."""

import numpy as np
import pytest
import torch
from fragments import Fragment
from street import CAR, ROAD, SIZE, SKY, STREET, street, truth

from segtrain.callback.images import panoptic_strip
from segtrain.masks import as_arrays
from segtrain.report.panels import EXTRA, LEAST_SIDE, WRONG
from segtrain.report.quality import panoptic_classes
from segtrain.report.segments import class_map, matched, panoptic_keys, panoptic_panels
from segtrain.segments import index, pack

GREY = np.full((*SIZE, 3), 120, np.uint8)


def at(picture, row, column):
    """The pixel of a picture, of whatever size, at a place of the image."""
    scale = picture.shape[0] / SIZE[0]
    return picture[int((row + 0.5) * scale), int((column + 0.5) * scale)].astype(int)


def over_grey(colour):
    return pytest.approx(0.55 * np.array(colour) + 0.45 * 120, abs=1)


def test_panels_show_what_is_there_and_what_is_wrong():
    found = as_arrays(street())
    panels = panoptic_panels(GREY, truth(), found, STREET, max_side=512)
    assert list(panels) == ["image", "truth", "prediction", "errors"]
    assert {panel.shape for panel in panels.values()} == {(213, LEAST_SIDE, 3)}
    assert at(panels["truth"], 2, 40) == over_grey(STREET.palette[SKY])
    assert at(panels["truth"], 25, 5) == over_grey(STREET.palette[CAR])
    assert at(panels["prediction"], 25, 5) == over_grey(STREET.palette[CAR])
    # The true car is one: the larger found one matches it, the other one does not.
    assert at(panels["truth"], 12, 22) == over_grey(STREET.palette[CAR])
    assert np.abs(at(panels["prediction"], 12, 22) - 0.45 * 120).max() > 30
    strength = 0.85
    grey = 0.55 * 120 + 90
    errors = panels["errors"]
    assert at(errors, 12, 3) == pytest.approx([grey] * 3, abs=1)
    assert at(errors, 12, 22) == pytest.approx(
        strength * np.array(EXTRA) + (1 - strength) * grey, abs=1
    )
    # A crowd and void are striped and not counted: two tones and no colour of errors.
    tones = {tuple(at(errors, row, column)) for row in range(35, 40) for column in range(51, 60)}
    assert len(tones) == 2
    assert all(len(set(tone)) == 1 for tone in tones)


def test_pixels_of_another_class_or_of_none_are_wrong():
    found = as_arrays(street())
    classes = np.full(SIZE, ROAD, np.uint8)
    panels = panoptic_panels(GREY, pack(classes, np.zeros(SIZE, int)), found, STREET, 512)
    wrong = 0.85 * np.array(WRONG) + 0.15 * (0.55 * 120 + 90)
    for row, column in ((5, 30), (12, 3), (0, 58)):  # sky, a car, nothing
        assert at(panels["errors"], row, column) == pytest.approx(wrong, abs=1)
    assert (class_map(found)[:2, -4:] == 255).all()


def test_matched_segments_overlap_by_more_than_half():
    found = as_arrays(street())
    true = index(torch.from_numpy(truth()))
    pairs = matched(true, found)
    assert pairs.shape == (len(true.labels) + 1, 5)
    assert [tuple(pair) for pair in np.argwhere(pairs)] == [(1, 1), (2, 2), (3, 3)]


def test_keys_have_the_pq_of_the_image():
    keys = {key.text.rpartition(" ")[0]: int(key.text.rpartition(" ")[2])
            for key in panoptic_keys(truth(), as_arrays(street()), STREET)
            if key.note.startswith("PQ")}  # fmt: skip
    assert keys["sky"] > 90
    assert 0 < keys["car"] < 60  # one of two
    assert "person" not in keys  # a crowd


def test_the_strip_of_tensorboard():
    strip = panoptic_strip(GREY, truth(), as_arrays(street()), STREET, 240)
    assert strip.shape == (160, 3 * 240 + 8, 3)
    assert (strip[:, :240] == 120).all()
    assert at(strip[:, 244:484], 2, 40) == over_grey(STREET.palette[SKY])
    assert at(strip[:, 488:], 2, 40) == over_grey(STREET.palette[SKY])


def test_nothing_found():
    found = as_arrays(street())
    found |= {"map": np.zeros(SIZE, np.int32), "labels": np.zeros(0, np.int64),
              "scores": np.zeros(0, np.float32)}  # fmt: skip
    panels = panoptic_panels(GREY, truth(), found, STREET, 512)
    assert np.array_equal(panels["prediction"], panels["image"])


def test_things_and_stuff_stand_apart():
    values = {"sky": 0.9, "road": 0.2, "car": 0.4, "person": None}
    parts = ("", "_things", "_stuff")
    means = {f"{name}{part}": 0.5 for name in ("pq", "sq", "rq") for part in parts}
    metrics = {**means, **{f"per_class_{n}": values for n in ("pq", "sq", "rq", "iou")}}
    html = panoptic_classes({"metrics": metrics, "things": ["car", "person"]})
    text = Fragment(html).text
    assert text.index("PQ of things") < text.index("PQ of stuff")
    assert text.index("car") < text.index("sky") < text.index("road")
    assert "left out of the means: person" in text
