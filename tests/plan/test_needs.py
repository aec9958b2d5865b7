"""What a training still has to fetch."""

import pytest

from segtrain.plan.needs import weight_state


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def state_of(weights: str) -> tuple | None:
    return weight_state({"weights": None, "architecture": {"backbone": {"weights": weights}}})


def test_weights_of_caffe(downloads, tmp_path):
    assert state_of("vgg16_caffe") == ("ImageNet, vgg16_caffe", "to fetch")
    (downloads / "vgg16-00b39a1b.pth").touch()
    assert state_of("vgg16_caffe") == ("ImageNet, vgg16_caffe", "cached")
    assert state_of("vgg16_caffe:none") is None
    assert state_of("vgg16_caffe:own.pth") == ("own.pth", "missing")
