"""Step times on random input, and what is drawn from them."""

import json

import pytest
from conftest import composed, small_network

from segtrain.plan.speed import FILE, extrapolated, measure_speed, picture_size, stored_speed


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("points", "seconds"),
    [
        ([(100, 2.0)], 20.0),  # in proportion, from one
        ([(100, 2.0), (400, 5.0)], 11.0),  # on the line through the last two
        ([(10, 9.0), (100, 2.0), (400, 5.0)], 11.0),
        ([(100, 3.0), (400, 2.0)], 2.0),  # never less with more pixels
        ([(500, 4.0), (1000, 7.0)], 7.0),  # measured
    ],
)
def test_line_over_pixels(points, seconds):
    assert extrapolated(points, 1000) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "name", ["deeplabv3_shapes", "deconvnet_shapes", "mask_rcnn_shapes", "fpn_shapes"]
)
def test_a_step_is_measured_and_kept(name, tmp_path):
    config = composed(f"experiment={name}", *small_network(f"experiment={name}"), "batch_size=2",
                      "trainer.accelerator=cpu")  # fmt: skip
    assert stored_speed(config) is None
    entry = measure_speed(config, name, seconds=60)
    height, width = picture_size(config)
    assert entry["measured"] == entry["input"] == f"2 x {height}x{width}"
    assert 0 < entry["seconds"] < 60
    assert stored_speed(config) == entry
    assert stored_speed(config | {"batch_size": 4}) is None
    (kept,) = json.loads((tmp_path / "cache" / FILE).read_text()).values()
    assert kept["experiment"] == name
    assert kept["device"]


def test_no_time_is_the_smallest_steps():
    config = composed("experiment=deeplabv3_shapes", "batch_size=8", "trainer.accelerator=cpu",
                      "dataset.transform.crop_size=[512,512]")  # fmt: skip
    entry = measure_speed(config, "x", seconds=0.0)
    assert entry["measured"] == "2 x 129x129"
