"""Files of the zoos: fetched once, whole and looked at, or refused with one message."""

import hashlib
import logging
import multiprocessing
import pickle
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from serving import serving

from segtrain.architecture.weights import read_state_dict
from segtrain.errors import UserError
from segtrain.prepare import fetch
from segtrain.zoo.catalogue import every, find
from segtrain.zoo.files import cached_file, checkpoints, obtain

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()
HASH = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(fetch, "WAITS", (0.0,) * len(fetch.WAITS))
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server():
    with serving() as server:
        yield server


def row(server, name="net-1234abcd.pth", content=CONTENT, sha256=None):
    server.files[f"/{name}"] = content
    own = hashlib.sha256(content).hexdigest()[:8] if sha256 is None else sha256
    return replace(find("torchvision/fcn_resnet50"), address=server.url(name), sha256=own)


def test_a_file_is_fetched_once(server):
    entry = row(server)
    path = obtain(entry, None, "weights")
    assert path.read_bytes() == CONTENT
    assert path == cached_file(entry)
    assert obtain(entry, None, "weights") == path
    assert server.sent == len(CONTENT)


def test_what_torch_has_fetched_is_not_fetched_again(server, monkeypatch):
    """The folder is PyTorch's own, and names with their hash are."""
    assert checkpoints() == Path(torch.hub.get_dir(), "checkpoints")
    monkeypatch.delenv("TORCH_HOME")
    assert checkpoints() == Path(torch.hub.get_dir(), "checkpoints")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert checkpoints() == Path(torch.hub.get_dir(), "checkpoints")
    address = "https://download.pytorch.org/models/fcn_resnet50_coco-1167a1af.pth"
    assert find("torchvision/fcn_resnet50").address == address
    assert cached_file(find("torchvision/fcn_resnet50")).name == address.rpartition("/")[2]


def test_a_broken_connection_is_gone_on_with(server):
    server.breaks = [100_000, 100_000]
    assert obtain(row(server), None, "weights").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", "bytes=200000-"]


def test_a_wrong_hash(server):
    with pytest.raises(UserError) as error:
        obtain(row(server, sha256="0" * 8), None, "weights")
    for part in ("torchvision_fcn_resnet50.pth", "expected 00000000", f"found {HASH}", "removed"):
        assert part in str(error.value)
    assert list(checkpoints().glob("*.pth")) == []


def test_another_file_in_the_cache_is_kept_and_refused(server):
    entry = row(server)
    cached_file(entry).parent.mkdir(parents=True)
    cached_file(entry).write_bytes(b"somebody's own")
    with pytest.raises(UserError) as error:
        obtain(entry, None, "weights_file")
    found = hashlib.sha256(b"somebody's own").hexdigest()
    for part in (str(cached_file(entry)), entry.sha256, found, "weights_file=<file>"):
        assert part in str(error.value)
    assert cached_file(entry).read_bytes() == b"somebody's own"
    assert server.sent == 0


def test_a_wrong_size_where_no_hash_is_known(server):
    entry = replace(row(server), sha256=None, size=len(CONTENT) + 1)
    with pytest.raises(UserError, match="it has 300,000 bytes, expected 300,001"):
        obtain(entry, None, "weights")
    assert obtain(replace(entry, size=len(CONTENT)), None, "weights").read_bytes() == CONTENT


@pytest.mark.parametrize("reason", ["404", "offline"])
def test_what_cannot_be_fetched_is_told_with_all_that_a_person_needs(server, reason):
    entry = row(server, "gone-1234abcd.pth")
    del server.files["/gone-1234abcd.pth"]
    if reason == "offline":
        entry = replace(entry, address="http://127.0.0.1:9/gone-1234abcd.pth")
    with pytest.raises(UserError) as error:
        obtain(entry, None, "weights_file")
    expected = ["404", "Not Found"] if reason == "404" else ["Connection refused"]
    for part in (entry.address, "gone-1234abcd.pth", f"sha256 {entry.sha256}",
                 "weights_file=<file>", *expected):  # fmt: skip
        assert part in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_file_from_the_disk(server, caplog):
    entry = row(server)
    Path("own.pth").write_bytes(CONTENT)
    with caplog.at_level(logging.WARNING):
        assert obtain(entry, "own.pth", "weights_file") == Path("own.pth")
    assert caplog.text == ""
    Path("own.pth").write_bytes(b"converted")
    assert obtain(entry, "own.pth", "weights_file") == Path("own.pth")
    assert re.search(f"own.pth is not the file of .*expected {entry.sha256}, found", caplog.text)
    with pytest.raises(UserError, match="weights_file=no.pth: no such file"):
        obtain(entry, "no.pth", "weights_file")
    assert server.sent == 0


def test_a_file_that_a_person_has_to_look_for(server):
    entry = replace(row(server), by_hand=True, address="https://example.org/folder")
    with pytest.raises(UserError, match="by hand: https://example.org/folder .*_file=<file>"):
        obtain(entry, None, "weights_file")
    cached_file(entry).parent.mkdir(parents=True)
    cached_file(entry).write_bytes(CONTENT)
    assert obtain(entry, None, "weights_file").read_bytes() == CONTENT


def test_an_archive_whose_hash_is_of_the_file_inside(server):
    with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net.pth", CONTENT)
    content, sha1 = Path("a.zip").read_bytes(), hashlib.sha1(CONTENT).hexdigest()
    entry = replace(row(server, "net-1234abcd.zip", content), sha256=None, sha1=sha1[:8])
    assert obtain(entry, None, "weights").read_bytes() == content
    with pytest.raises(UserError, match="sha1 hash of the file inside: expected 01234567, found"):
        obtain(replace(entry, sha1="01234567"), None, "weights")


def fetch_in_process(entry):
    obtain(entry, None, "weights")


def test_two_processes_fetch_it_once(server):
    entry = row(server)
    both = [multiprocessing.get_context("fork").Process(target=fetch_in_process, args=(entry,))
            for _ in range(2)]  # fmt: skip
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert server.sent == len(CONTENT)


class Hostile:
    def __reduce__(self):
        return (Path.mkdir, (Path("SEEN"),))


@pytest.mark.parametrize("name", ["evil-1234abcd.pth", "evil-1234abcd.pkl"])
def test_a_hostile_file_is_fetched_and_runs_nothing(server, name):
    torch.save({"state_dict": Hostile()}, "evil")
    evil = pickle.dumps({"model": Hostile()})
    content = evil if name.endswith(".pkl") else Path("evil").read_bytes()
    file = obtain(row(server, name, content), None, "weights")
    with pytest.raises(UserError, match=r"p(th|kl): not a readable weights file .*pathlib"):
        read_state_dict(file)
    assert not Path("SEEN").exists()


def test_every_row_has_a_place_of_its_own():
    places = [cached_file(entry) for entry in every()]
    assert len(set(places)) == len(places)
