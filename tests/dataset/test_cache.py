import os
import subprocess
import sys

import pytest
from faults import BYTES, TEXTS

from segtrain.dataset.cache import (
    cache_root,
    cached_folder,
    files_fingerprint,
    store_entry,
    stored_entry,
)
from segtrain.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))


def test_place(tmp_path, monkeypatch):
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("SEGTRAIN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "segtrain"


def test_another_key_replaces_the_content():
    def build(text):
        return lambda folder: (folder / text).write_text(text)

    for key, text, expected in (("1", "a", "a"), ("1", "b", "a"), ("2", "c", "c")):
        folder = cached_folder("deep/name", key, build(text))
        assert [path.name for path in folder.iterdir() if path.name != "key"] == [expected]


def test_a_failed_build_leaves_the_old_content():
    cached_folder("name", "1", lambda folder: (folder / "a").touch())

    def fail(folder):
        (folder / "half").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cached_folder("name", "2", fail)
    assert (cached_folder("name", "1", fail) / "a").exists()


@pytest.mark.parametrize("damage", [*BYTES, "gone", "other", "large"])
@pytest.mark.parametrize("name", ["key", "pixels", "told.json"])
def test_a_damaged_folder_is_built_anew(monkeypatch, name, damage):
    files = {"pixels": bytes(range(256)) * 2, "told.json": b'{"a": 1}'}
    if damage == "large":  # only the size counts then
        monkeypatch.setattr("segtrain.dataset.cache.SUMMED", 1)

    def build(folder):
        for part, content in files.items():
            (folder / part).write_bytes(content)

    path = cached_folder("name", "1", build) / name
    if damage == "gone":
        path.unlink()
    elif damage == "other":
        path.write_bytes(path.read_bytes()[::-1])
    else:
        BYTES["cut" if damage == "large" else damage](path)
    folder = cached_folder("name", "1", build)
    assert {part: (folder / part).read_bytes() for part in files} == files
    before = (folder / "pixels").stat().st_ino
    assert (cached_folder("name", "1", build) / "pixels").stat().st_ino == before


@pytest.mark.parametrize(
    "damage", [*TEXTS.values(), lambda path: path.write_text('{"one": [1], "two": {"a": 2.5}}')]
)
def test_damaged_entries_are_no_entries(damage):
    kinds = {"a": float, "b": str}
    store_entry("file.json", "one", {"a": 1.5, "b": "c", "more": None})
    store_entry("file.json", "two", {"a": 2.5, "b": "d"})
    assert stored_entry("file.json", "one", kinds) == {"a": 1.5, "b": "c", "more": None}
    damage(cache_root() / "file.json")
    assert stored_entry("file.json", "one", kinds) is None
    assert stored_entry("file.json", "two", kinds) is None
    store_entry("file.json", "two", {"a": 2.5, "b": "d"})
    assert stored_entry("file.json", "two", kinds) == {"a": 2.5, "b": "d"}


def test_processes_build_once(tmp_path):
    code = (
        "import time; from segtrain.dataset.cache import cached_folder\n"
        "def build(folder):\n"
        f"    open(r'{tmp_path / 'log'}', 'a').write('x'); time.sleep(0.5)\n"
        "    (folder / 'whole').touch()\n"
        "assert (cached_folder('name', '1', build) / 'whole').exists()"
    )
    started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait() for process in started] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "x"


def test_fingerprint_follows_the_files(tmp_path):
    path = tmp_path / "a"
    seen = {files_fingerprint([path])}
    path.write_text("one")
    seen.add(files_fingerprint([path]))
    os.utime(path, ns=(1, 1))
    seen.add(files_fingerprint([path]))
    path.write_text("more")
    seen.add(files_fingerprint([path]))
    assert len(seen) == 4
    assert files_fingerprint([path]) in seen


def test_unwritable_cache_says_so(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(tmp_path / "cache"))

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(UserError, match="set SEGTRAIN_CACHE"):
        cached_folder("name", "1", lambda folder: None)
