"""Whether ImageNet weights can be had: on the disk, or from a server that answers."""

import socket
import time
import urllib.request

import pytest
import torch
from serving import serving

from segtrain.automatic import reach
from segtrain.automatic.reach import answers, can_fetch

BACKBONE, REPOSITORY = "efficientnet_lite0", "models--timm--efficientnet_lite0.ra_in1k"


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def nowhere() -> str:
    """An address at which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize("name", [BACKBONE, "vgg16"])
def test_a_hub_that_answers(server, monkeypatch, name):
    monkeypatch.setenv("HF_ENDPOINT", server.url(""))  # 404: it speaks
    assert can_fetch(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not can_fetch(name)


def test_a_hub_out_of_reach(monkeypatch, nowhere):
    monkeypatch.setenv("HF_ENDPOINT", nowhere)
    assert not can_fetch(BACKBONE)


def test_weights_on_the_disk(monkeypatch, nowhere, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", nowhere)
    root = tmp_path / "hub" / REPOSITORY
    for folder in ("refs", "snapshots/abc"):
        (root / folder).mkdir(parents=True)
    (root / "refs/main").write_text("abc")
    (root / "snapshots/abc/model.safetensors").write_bytes(b"weights")
    assert can_fetch(BACKBONE)


def test_weights_of_an_address_of_their_own(monkeypatch, nowhere, tmp_path):
    flavour = reach.FLAVOURS["vgg16_caffe"]
    monkeypatch.setitem(reach.FLAVOURS, "vgg16_caffe", flavour._replace(url=f"{nowhere}/vgg.pth"))
    assert not can_fetch("vgg16_caffe")
    (tmp_path / "torch/checkpoints").mkdir(parents=True)
    (tmp_path / "torch/checkpoints/vgg.pth").write_bytes(b"weights")
    assert can_fetch("vgg16_caffe")


def test_a_name_that_is_looked_up_for_ever(monkeypatch):
    """A resolver knows no time limit of the connection's."""
    monkeypatch.setattr(reach, "PATIENCE", 0.1)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: time.sleep(3600))
    assert not answers("https://huggingface.co")
