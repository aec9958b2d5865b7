"""`prepare` from the command line against a local server, with small archives."""

import hashlib
import io
import json
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from conftest import composed, only_run, write_pair

from segtrain.configuration.folder import options


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))


class Files(SimpleHTTPRequestHandler):
    """A folder over HTTP; what was asked for is noted."""

    asked: list = []

    def do_GET(self):  # noqa: N802  (http.server's name)
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def served(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    Files.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.fixture
def archive(served, tmp_path):
    """VOC's archive with three images, and the overrides that fetch it."""
    made = tmp_path / "made/VOCdevkit/VOC2012"
    for index, name in enumerate("abc"):
        write_pair(made, name, np.full((20, 30), index, np.uint8))
    (made / "images").rename(made / "JPEGImages")
    (made / "masks").rename(made / "SegmentationClass")
    lists = made / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for split, names in {"train": "ab", "val": "c", "trainval": "abc", "trainaug": "ab"}.items():
        (lists / f"{split}.txt").write_text("\n".join(names))
    folder, url = served
    with tarfile.open(folder / "voc.tar", "w") as tar:
        tar.add(tmp_path / "made/VOCdevkit", "VOCdevkit")
    digest = hashlib.md5((folder / "voc.tar").read_bytes()).hexdigest()
    return [
        "prepare", "dataset=voc", f"dataset.source.root={tmp_path / 'root'}",
        "dataset.num_workers=0", one_archive(f"{url}/voc.tar", f"md5:{digest}"),
        "dataset.preparation.counts={train: 2, val: 1, trainval: 3, trainaug: 2}",
    ]  # fmt: skip


def one_archive(url, digest):
    fields = f"url: '{url}', digest: '{digest}', folder: ., creates: [VOCdevkit/VOC2012]"
    target = "segtrain.dataset.preparation.Archive"
    return f"dataset.preparation.archives=[{{_target_: {target}, {fields}}}]"


def test_downloads_extracts_verifies_and_then_does_nothing(archive, segtrain, tmp_path):
    code, out, err = segtrain(*archive)
    assert code == 0, err
    assert "verified    voc: no fault" in out
    assert Files.asked == ["/voc.tar"]
    report = json.loads(next(tmp_path.glob("outputs/prepare/*/verify.json")).read_text())
    assert report["train"]["images"] == 2
    assert report["val"]["pixels_or_instances"]["bicycle"] == 600
    assert not list((tmp_path / "root/downloads").iterdir())
    before = sorted((tmp_path / "root").rglob("*"))
    code, out, err = segtrain(*archive)
    assert code == 0, err
    assert "unchanged since it was verified" in out
    assert Files.asked == ["/voc.tar"]
    assert sorted((tmp_path / "root").rglob("*")) == before


def test_a_planted_fault_fails_the_next_run(archive, segtrain, tmp_path):
    assert segtrain(*archive)[0] == 0
    mask = tmp_path / "root/VOCdevkit/VOC2012/SegmentationClass/b.png"
    mask.write_bytes(mask.read_bytes()[:-20])
    for verify in ("verify=null", "verify=true"):
        code, _, err = segtrain(*archive, verify)
        assert code == 2
        assert "SegmentationClass/b.png: truncated PNG" in err
        assert "Traceback" not in err


def test_a_new_file_is_looked_at(archive, segtrain, tmp_path):
    assert segtrain(*archive)[0] == 0
    masks = tmp_path / "root/VOCdevkit/VOC2012/SegmentationClass"
    (masks / "new.png").write_bytes((masks / "a.png").read_bytes())
    code, _, err = segtrain(*archive)
    assert code == 2
    assert "new.png: extra file, in no list of the set" in err


def test_verify_alone_fetches_nothing(archive, segtrain):
    code, _, err = segtrain(*archive, "verify=true")
    assert code == 2
    assert "no such folder" in err
    assert Files.asked == []


def test_wrong_hash_and_unsafe_archive_are_refused(archive, served, segtrain, tmp_path):
    folder, url = served
    code, _, err = segtrain(*archive, one_archive(f"{url}/voc.tar", "md5:" + "0" * 32))
    assert code == 2
    assert "wrong md5 hash" in err
    with tarfile.open(folder / "evil.tar", "w") as tar:
        member = tarfile.TarInfo("../evil.txt")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    digest = hashlib.md5((folder / "evil.tar").read_bytes()).hexdigest()
    code, _, err = segtrain(*archive, one_archive(f"{url}/evil.tar", f"md5:{digest}"))
    assert code == 2
    assert "'../evil.txt' lies outside the folder" in err
    assert not list(tmp_path.rglob("evil.txt"))


def test_partial_extraction_is_recovered(archive, segtrain, tmp_path, monkeypatch):
    from segtrain.prepare import archives

    def interrupted(path, folder):
        (folder / "VOCdevkit/VOC2012").mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(archives, "extract", interrupted)
        assert segtrain(*archive)[0] == 130
    code, _, err = segtrain(*archive)
    assert code == 0, err
    assert Files.asked == ["/voc.tar"]


def test_what_needs_a_login_is_explained(segtrain, tmp_path):
    code, _, err = segtrain(
        "prepare", "dataset=cityscapes", f"dataset.source.root={tmp_path / 'city'}"
    )
    assert code == 2
    assert f"{tmp_path / 'city/downloads/gtFine_trainvaltest.zip'}  from https://www.city" in err
    assert "Register at" in err
    assert "gtCoarse.zip" not in err  # optional


def test_wrong_counts_unless_it_is_a_part(archive, segtrain):
    assert segtrain(*archive)[0] == 0
    more = "dataset.preparation.counts={train: 1464, val: 1, trainval: 3, trainaug: 2}"
    code, _, err = segtrain(*archive, more)
    assert code == 2
    assert "split 'train' has 2 images, expected 1464" in err
    assert segtrain(*archive, more, "complete=false")[0] == 0


def test_preview_draws_a_sheet(segtrain, folder_set):
    code, out, err = segtrain(
        "prepare", "dataset=folder", f"dataset.source.root={folder_set}", "preview=true",
        "preview_samples=3", "dataset.transform.crop_size=[64,64]",
    )  # fmt: skip
    assert code == 0, err
    run = only_run("outputs/prepare/*")
    assert {path.name for path in run.glob("contact_sheet.*")} == {
        "contact_sheet.html", "contact_sheet.png",
    }  # fmt: skip
    assert "contact_sheet.html" in out


@pytest.mark.parametrize("name", options("dataset"))
def test_every_set_says_how_it_gets_there(name):
    config = composed(f"dataset={name}", command="prepare")["dataset"]
    preparation = config["preparation"]
    if preparation is None:
        return
    assert preparation["root"] == config["source"]["root"]
    assert preparation["archives"] or preparation["note"] or name.startswith("folder")
    assert set(preparation["optional"]) <= set(preparation["counts"])
    for archive in preparation["archives"]:
        assert archive["url"].startswith("http")
        kind = (archive["digest"] or "").partition(":")[0]
        assert kind in ("", "md5", "sha1", "sha256")
    for split in config["splits"].values():
        assert set(split.split("+")) <= set(preparation["counts"])
