import hashlib
import io
import logging
import re
import socket
import stat
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from serving import serving

from segtrain.dataset.preparation import Archive
from segtrain.errors import UserError
from segtrain.prepare import archives, fetch
from segtrain.prepare.archives import obtain
from segtrain.prepare.extract import extract
from segtrain.prepare.fetch import check_digest, download

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()
FILES = {"set/images/a.jpg": CONTENT, "set/list.txt": b"a\n"}


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    monkeypatch.setattr(fetch, "WAITS", (0.0,) * len(fetch.WAITS))
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server():
    with serving() as server:
        yield server


def tar_bytes(entries, mode="w:gz"):
    """A tar of (name or TarInfo, content) entries."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for entry, content in entries:
            info = entry if isinstance(entry, tarfile.TarInfo) else tarfile.TarInfo(entry)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zip_bytes(entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, content in entries:
            archive.writestr(entry, content)
    return buffer.getvalue()


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def zip_link(name, target):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info, target.encode()


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def served(server, name="set.tar.gz", creates="set", folder="."):
    """Puts an archive of FILES on the server."""
    data = zip_bytes(FILES.items()) if name.endswith(".zip") else tar_bytes(FILES.items())
    server.files[f"/{name}"] = data
    return Archive(server.url(name), sha256(data), folder, [creates])


def tree(root):
    """Content of every file below a folder, by relative name."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", ["set.tar.gz", "set.tgz", "set.zip"])
def test_obtains_an_archive_once(server, tmp_path, name):
    archive = served(server, name)
    assert obtain(archive, tmp_path, keep_archives=False)
    assert tree(tmp_path) == FILES
    assert not obtain(archive, tmp_path, keep_archives=False)
    assert len(server.ranges) == 1


def test_obtains_a_plain_tar_into_a_folder(server, tmp_path):
    data = tar_bytes(FILES.items(), "w")
    server.files["/set.tar"] = data
    digest = "md5:" + hashlib.md5(data).hexdigest().upper()
    assert obtain(Archive(server.url("set.tar"), digest, "x/y", ["x/y/set"]), tmp_path, False)
    assert tree(tmp_path / "x/y") == FILES


def test_obtains_a_plain_file(server, tmp_path):
    server.files["/list%20a.json?download=1"] = b"{}"
    url = server.url("list%20a.json?download=1")
    archive = Archive(url, None, "annotations", ["annotations/list a.json"])
    assert obtain(archive, tmp_path, keep_archives=False)
    assert tree(tmp_path) == {"annotations/list a.json": b"{}"}


def test_obtains_from_a_file_url(tmp_path):
    source = tmp_path / "there/set.zip"
    source.parent.mkdir()
    source.write_bytes(zip_bytes(FILES.items()))
    assert obtain(Archive(source.as_uri(), None, ".", ["set"]), tmp_path / "here", False)
    assert tree(tmp_path / "here") == FILES
    assert source.exists()


def test_keeps_archives_when_asked(server, tmp_path):
    archive = served(server)
    obtain(archive, tmp_path, keep_archives=True)
    kept = tmp_path / "downloads/set.tar.gz"
    assert sha256(kept.read_bytes()) == archive.digest
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


def test_hand_placed_archive_needs_no_network(server, tmp_path):
    archive = served(server)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/set.tar.gz").write_bytes(server.files["/set.tar.gz"])
    assert obtain(archive, tmp_path, keep_archives=False)
    assert server.ranges == []
    put_there = (tmp_path / "downloads/set.tar.gz").read_bytes()
    assert tree(tmp_path) == {**FILES, "downloads/set.tar.gz": put_there}


def test_broken_connections_are_resumed(server, tmp_path):
    archive = served(server)
    size = len(server.files["/set.tar.gz"])
    server.breaks = [10_000] * 8  # more than the attempts without progress
    assert obtain(archive, tmp_path, keep_archives=False)
    assert server.ranges == [None, *(f"bytes={10_000 * n}-" for n in range(1, 9))]
    assert server.sent == size
    assert tree(tmp_path) == FILES


def test_a_later_run_resumes(server, tmp_path, monkeypatch):
    server.files["/a.bin"] = CONTENT
    server.breaks = [100_000, 0]
    monkeypatch.setattr(fetch, "WAITS", ())
    for reason in ("the connection broke after 100000 of 300000 bytes", "the connection broke"):
        with pytest.raises(UserError, match=reason):
            download(server.url("a.bin"), tmp_path / "a.bin", None)
    assert (tmp_path / "a.bin.part").stat().st_size == 100_000
    download(server.url("a.bin"), tmp_path / "a.bin", sha256(CONTENT))
    assert server.ranges == [None, "bytes=100000-", "bytes=100000-"]
    assert server.sent == len(CONTENT)
    assert tree(tmp_path) == {"a.bin": CONTENT}


def test_server_without_ranges_starts_again(server, tmp_path):
    server.files["/a.bin"] = CONTENT
    server.knows_range, server.breaks = False, [100_000]
    download(server.url("a.bin"), tmp_path / "a.bin", None)
    assert tree(tmp_path) == {"a.bin": CONTENT}


def test_gives_up_without_progress(server, tmp_path):
    server.files["/a.bin"] = CONTENT
    server.knows_range, server.breaks = False, [1000] * 99
    with pytest.raises(UserError, match="broke after 1000 of 300000"):
        download(server.url("a.bin"), tmp_path / "a.bin", None)
    assert len(server.ranges) == 1 + len(fetch.WAITS)


@pytest.mark.parametrize("names_length", [True, False])
@pytest.mark.parametrize("digest", [sha256(CONTENT), None])
def test_whole_part_file(server, tmp_path, digest, names_length):
    server.files["/a.bin"] = CONTENT
    server.names_length = names_length
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    download(server.url("a.bin"), tmp_path / "a.bin", digest)
    assert tree(tmp_path) == {"a.bin": CONTENT}
    assert server.sent == (0 if names_length or digest else len(CONTENT))


def test_too_long_part_file_is_dropped(server, tmp_path):
    server.files["/a.bin"] = CONTENT
    (tmp_path / "a.bin.part").write_bytes(CONTENT + b"x")
    download(server.url("a.bin"), tmp_path / "a.bin", None)
    assert tree(tmp_path) == {"a.bin": CONTENT}


def test_range_that_was_not_asked_for_is_dropped(server, tmp_path):
    server.files["/a.bin"] = CONTENT
    server.shift = 5
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:1000])
    download(server.url("a.bin"), tmp_path / "a.bin", None)
    assert server.ranges == ["bytes=1000-", None]
    assert tree(tmp_path) == {"a.bin": CONTENT}


@pytest.mark.parametrize("by_hand", [True, False])
def test_wrong_hash_is_refused(server, tmp_path, by_hand):
    archive = served(server)
    wrong = Archive(archive.url, "sha256:" + "0" * 64, ".", ["set"])
    if by_hand:
        (tmp_path / "downloads").mkdir()
        (tmp_path / "downloads/set.tar.gz").write_bytes(server.files["/set.tar.gz"])
    ending = "put the right one there" if by_hand else "was removed"
    with pytest.raises(UserError, match=rf"set\.tar\.gz.*expected 000.*found.*{ending}") as error:
        obtain(wrong, tmp_path, keep_archives=True)
    assert archive.digest.removeprefix("sha256:") in str(error.value)
    assert list(tree(tmp_path)) == (["downloads/set.tar.gz"] if by_hand else [])


def test_check_digest(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    check_digest(path, None)
    check_digest(path, "md5:900150983cd24fb0d6963f7d28e17f72")
    check_digest(path, "sha1:a9993e364706816aba3e25717850c26c9cd0d89d")
    with pytest.raises(UserError, match="wrong md5 hash"):
        check_digest(path, "md5:00")
    assert path.exists()


def test_missing_file_on_the_server(server, tmp_path):
    path = tmp_path / "downloads/gone.zip"
    with pytest.raises(UserError) as error:
        obtain(Archive(server.url("gone.zip"), None, ".", ["set"]), tmp_path, False)
    for part in (server.url("gone.zip"), "404", "download it elsewhere", f"put it at {path}"):
        assert part in str(error.value)
    assert len(server.ranges) == 1


def test_server_errors_are_repeated(server, tmp_path):
    server.status = 503
    with pytest.raises(UserError, match="503"):
        download(server.url("a.zip"), tmp_path / "a.zip", None)
    assert len(server.ranges) == 1 + len(fetch.WAITS)


def test_refused_connection(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/set.zip"
        with pytest.raises(UserError, match=r"set\.zip.*refused.*put it at .*set\.zip"):
            download(url, tmp_path / "set.zip", None)


def test_missing_file_url(tmp_path, caplog):
    with pytest.raises(UserError, match="No such file"):
        download((tmp_path / "gone.zip").as_uri(), tmp_path / "x.zip", None)
    assert "next attempt" not in caplog.text


def test_full_disk_is_noticed_first(server, tmp_path, monkeypatch):
    server.files["/a.bin"] = CONTENT
    usage = fetch.shutil.disk_usage(tmp_path)._replace(free=len(CONTENT) - 1)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match=r"GB are free.*make room"):
        download(server.url("a.bin"), tmp_path / "a.bin", None)
    assert not (tmp_path / "a.bin").exists()


def test_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "root").write_text("a file")
    with pytest.raises(UserError, match="root"):
        obtain(served(server), tmp_path / "root", keep_archives=False)


def test_logs_start_and_end_without_a_terminal(server, tmp_path, caplog, capsys):
    server.files["/a.bin"] = CONTENT
    with caplog.at_level(logging.INFO, "segtrain"):
        download(server.url("a.bin"), tmp_path / "a.bin", None)
    assert len(caplog.messages) == 2
    assert "300000 bytes" in caplog.messages[1]
    assert capsys.readouterr() == ("", "")


def test_shows_a_bar_on_a_terminal(server, tmp_path, caplog, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    server.files["/a.bin"] = CONTENT
    with caplog.at_level(logging.INFO, "segtrain"):
        download(server.url("a.bin"), tmp_path / "a.bin", None)
    assert len(caplog.messages) == 2
    shown = capsys.readouterr()
    assert "MB" in shown.out
    assert "━" in shown.out
    assert shown.err == ""


UNSAFE = {
    "parent.tar.gz": tar_bytes([("good", b"1"), ("../evil", b"x")]),
    "inner_parent.tar": tar_bytes([("good", b"1"), ("a/../../evil", b"x")], "w"),
    "absolute.tar.gz": tar_bytes([("good", b"1"), ("/tmp/evil", b"x")]),
    "drive.tar.gz": tar_bytes([("good", b"1"), ("C:\\evil", b"x")]),
    "link.tar.gz": tar_bytes([("good", b"1"), link("evil", "..")]),
    "link_to_root.tar.gz": tar_bytes([("good", b"1"), link("evil", "/tmp")]),
    "through_link.tar.gz": tar_bytes([link("evil", "../outside"), ("evil/file", b"x")]),
    "behind_inner_link.tar.gz": tar_bytes([("a/f", b"1"), link("evil", "a"), ("evil/f", b"x")]),
    "late_link.tar.gz": tar_bytes([("evil/f", b"x"), link("evil", "a")]),
    "chained_link.tar.gz": tar_bytes([("a/f", b""), link("a/up", ".."), link("evil", "a/up/..")]),
    "deep_link.tar.gz": tar_bytes([link("a/evil", "../..")]),
    "hard_link.tar.gz": tar_bytes([("good", b"1"), link("evil", "../victim", tarfile.LNKTYPE)]),
    "hard_link_root.tar.gz": tar_bytes([link("evil", "/etc/passwd", tarfile.LNKTYPE)]),
    "moved_link.tar.gz": tar_bytes([link("a/b", "../c"), link("evil", "a/b", tarfile.LNKTYPE)]),
    "device.tar.gz": tar_bytes([("good", b"1"), link("evil", "", tarfile.CHRTYPE)]),
    "fifo.tar.gz": tar_bytes([("good", b"1"), link("evil", "", tarfile.FIFOTYPE)]),
    "parent.zip": zip_bytes([("good", b"1"), ("../evil", b"x")]),
    "windows_parent.zip": zip_bytes([("good", b"1"), ("..\\evil", b"x")]),
    "absolute.zip": zip_bytes([("good", b"1"), ("/tmp/evil", b"x")]),
    "drive.zip": zip_bytes([("good", b"1"), ("C:evil", b"x")]),
    "through_link.zip": zip_bytes([zip_link("evil", "../outside"), ("evil/file", b"x")]),
}


@pytest.mark.parametrize("second_guard", [True, False])
@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_archives_write_nothing(tmp_path, monkeypatch, name, second_guard):
    if not second_guard:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    (tmp_path / "outside").mkdir()
    (tmp_path / "victim").write_text("untouched")
    (tmp_path / name).write_bytes(UNSAFE[name])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=rf"{re.escape(name)}: unsafe archive.*evil"):
        extract(tmp_path / name, tmp_path / "folder")
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/evil").exists()


def test_inner_links_are_extracted_twice(tmp_path):
    entries = [("./a/f", b"1"), link("b/soft", "../a/f"), link("hard", "./a/f", tarfile.LNKTYPE)]
    (tmp_path / "x.tar").write_bytes(tar_bytes(entries, "w"))
    for _ in range(2):
        extract(tmp_path / "x.tar", tmp_path / "folder")
        assert tree(tmp_path / "folder") == {"a/f": b"1", "b/soft": b"1", "hard": b"1"}
    assert (tmp_path / "folder/b/soft").is_symlink()


def test_interrupted_extraction_is_done_again(server, tmp_path, monkeypatch):
    archive = served(server)

    def interrupted(path, folder):
        (folder / "set").mkdir()
        (folder / "set/list.txt").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(archives, "extract", interrupted)
        with pytest.raises(KeyboardInterrupt):
            obtain(archive, tmp_path, keep_archives=False)
    assert (tmp_path / "downloads/set.tar.gz.extracting").exists()
    assert obtain(archive, tmp_path, keep_archives=False)
    assert tree(tmp_path) == FILES
    assert len(server.ranges) == 1
    assert not obtain(archive, tmp_path, keep_archives=False)


def test_archive_without_what_it_should_create(server, tmp_path):
    archive = served(server, creates="other")
    with pytest.raises(UserError, match=r"set\.tar\.gz: .*expected .*other in it"):
        obtain(archive, tmp_path, keep_archives=False)


TAR = tar_bytes(FILES.items(), "w")
DAMAGED = {
    "half.tar.gz": tar_bytes(FILES.items())[:-100_000],
    "no_trailer.tar.gz": tar_bytes(FILES.items())[:-8],
    "half.zip": zip_bytes(FILES.items())[:-100_000],
    "half.tar": TAR[:150_000],
    "between_members.tar": TAR[: TAR.index(b"set/list.txt")],
    "broken_header.tar": TAR.replace(b"set/list.txt", b"set/lisp.txt"),
    "flipped.zip": zip_bytes(FILES.items()).replace(CONTENT[:100], CONTENT[:99] + b"\0"),
    "page.tar.gz": b"<html>not found</html>",
    "broken_name.zip": zip_bytes({"ü": b"x"}.items()).replace("ü".encode(), b"\xff\xff"),
    "page.zip": b"<html>not found</html>",
    "empty.tar": b"",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_archives_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(DAMAGED[name])
    with pytest.raises(UserError, match=rf"{re.escape(name)}: cannot be extracted.*remove it"):
        extract(tmp_path / name, tmp_path / "folder")
