import numpy as np
import pytest
from conftest import composed

from segtrain.assembly import build_data, resolve_class_weights
from segtrain.configuration.composing import compose_config
from segtrain.dataset.counts import class_frequency, median_frequency_weights
from segtrain.dataset.labels import SHAPES
from segtrain.dataset.shapes import Shapes
from segtrain.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_frequency_and_weights_by_hand(num_workers):
    source = Shapes("train", num_images=20, size=(48, 48), seed=0)
    pixels, shown_in = np.zeros(8), np.zeros(8)
    for index in range(20):
        mask = source.read(index)[1]
        for train_id in range(8):
            if (mask == train_id).any():
                pixels[train_id] += (mask == train_id).sum()
                shown_in[train_id] += (mask != 255).sum()
    ours = class_frequency(source, "shapes-train", num_workers)
    assert (ours[0] == pixels).all()
    assert (ours[1] == shown_in).all()
    weights = median_frequency_weights(*ours)
    assert weights == pytest.approx(np.median(pixels / shown_in) / (pixels / shown_in))


def test_a_class_that_never_occurs_weighs_nothing():
    weights = median_frequency_weights(np.array([60, 0, 20]), np.array([100, 0, 100]))
    assert weights == pytest.approx([0.4 / 0.6, 0, 2])


def test_counted_once(monkeypatch):
    source = Shapes("train", num_images=5, size=(48, 48), seed=0)
    first = class_frequency(source, "shapes-train", 0)
    monkeypatch.setattr(Shapes, "class_counts", lambda self, index: 1 / 0)
    assert (class_frequency(source, "shapes-train", 0)[0] == first[0]).all()


def test_rule_becomes_numbers():
    config = composed(
        "dataset=shapes", "dataset.source.num_images.train=10", "dataset.num_workers=0",
        "loss.pixel.class_weights=sqrt_median_frequency",
    )  # fmt: skip
    data = build_data(config)
    resolve_class_weights(config, data)
    expected = median_frequency_weights(*class_frequency(data.train_source, "shapes-train", 0))
    weights = config["loss"]["pixel"]["class_weights"]
    assert weights == pytest.approx(expected**0.5, abs=1e-4)
    assert len(weights) == SHAPES.num_classes
    with pytest.raises(UserError, match="class_weights=balanced.*sqrt_median_frequency"):
        compose_config(["dataset=shapes", "loss.pixel.class_weights=balanced"])


def test_camvid_weights_are_those_of_its_experiment(real_data):
    config = composed("experiment=deeplabv3_camvid", "dataset.num_workers=0",
                      "loss.pixel.class_weights=sqrt_median_frequency")  # fmt: skip
    resolve_class_weights(config, build_data(config))
    assert config["loss"]["pixel"]["class_weights"] == pytest.approx(
        [0.529, 0.449, 2.188, 0.386, 1.0, 0.651, 1.961, 1.407, 0.888, 2.527, 2.97], abs=1e-3
    )
