"""Folders of one's own: what is read, and that every command refuses the same alike."""

import logging
import os
import re

import numpy as np
import pytest
from conftest import composed, write_pair
from PIL import Image

from segtrain.assembly import build_data
from segtrain.dataset.folder import folder, folder_labels
from segtrain.errors import UserError
from segtrain.prepare.once import splits_to_verify
from segtrain.prepare.shards import write_shards
from segtrain.prepare.verify import verify


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))


def data_of(root, *overrides):
    return build_data(
        composed("dataset=folder", f"dataset.source.root={root}", "dataset.num_workers=0",
                 *overrides)
    )  # fmt: skip


def faults_of(root, *overrides):
    data = data_of(root, *overrides)
    counts, optional = splits_to_verify(data, True)
    return [fault for report in verify(data, counts, optional, 0) for fault in report.faults]


def names_of(root, split="train"):
    source = folder(str(root), split, folder_labels(str(root)))
    return [source.name(index) for index in range(len(source))]


def test_sub_folders_are_read(folder_set):
    mask = np.eye(40, 48, dtype=np.uint8)
    write_pair(folder_set / "new", "p0", mask)
    for kind in ("images", "masks"):
        (folder_set / kind / "north/far").mkdir(parents=True)
        (file,) = (folder_set / "new" / kind).iterdir()
        file.rename(folder_set / kind / "north/far" / file.name)
    with open(folder_set / "val.txt", "a") as lines:
        lines.write("north/far/p0\n")
    assert names_of(folder_set, "val")[-1] == "images/north/far/p0.jpg"
    source = folder(str(folder_set), "val", folder_labels(str(folder_set)))
    assert np.array_equal(source.read(2)[1], mask)
    for path in (folder_set / "train.txt", folder_set / "val.txt"):
        path.unlink()
    every = names_of(folder_set, "train") + names_of(folder_set, "val")
    assert len(every) == 9
    assert "images/north/far/p0.jpg" in every


def test_hidden_files_are_none_of_the_set(folder_set):
    (folder_set / "images/.ipynb_checkpoints").mkdir()
    (folder_set / "images/.ipynb_checkpoints/a.jpg").write_bytes(b"x")
    (folder_set / "images/._p0.jpg").write_bytes(b"x")
    (folder_set / "train.txt").unlink()
    (folder_set / "val.txt").unlink()
    assert len(names_of(folder_set, "train") + names_of(folder_set, "val")) == 8


@pytest.mark.parametrize("name", ["IMG 01 (1) é=x,y", "größe", "a.b.c", "[x]*"])
def test_any_name_is_read(folder_set, name):
    write_pair(folder_set, name, np.eye(40, 48, dtype=np.uint8))
    (folder_set / "val.txt").write_bytes(f"\ufeff{name}\r\n".encode())
    assert names_of(folder_set, "val") == [f"images/{name}.jpg"]
    assert not faults_of(folder_set)


def binary(root):
    for path in (root / "masks").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8) * 255).save(path)
    (root / "classes.txt").write_text("ground\nthing\n")


def as_jpeg(root):
    for path in (root / "masks").iterdir():
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def with_void(root):
    mask = np.asarray(Image.open(root / "masks/p0.png")).astype(np.int32)
    mask[0] = -9999
    Image.fromarray(mask).save(root / "masks/p0.tif")
    (root / "masks/p0.png").unlink()


def colours(root):
    palette = np.array([(0, 0, 0), (250, 50, 83), (51, 221, 255), (1, 2, 3)], np.uint8)
    for path in (root / "masks").iterdir():
        mask = np.array(Image.open(path))
        mask[0, 0] = 3 if path.stem == "p3" else 0
        Image.fromarray(palette[mask]).save(path)
    (root / "classes.txt").write_text("0,0,0 a\n250,50,83 b\n51,221,255 c\n")


FAULTS = {
    "0 and 255 under plain names": (
        binary, r"6 masks show only \['ground'\] of 2 classes, and 67% void.*'255 object'"),
    "JPEG masks": (as_jpeg, r"masks/p0\.jpg: a JPEG as a mask.*magick mogrify -format png"),
    "an image that is a pipe": (
        lambda r: pipe(r / "images/p3.jpg"), r"images/p3\.jpg: no regular file \(a named pipe\)"),
    "a mask that is a pipe": (
        lambda r: pipe(r / "masks/p3.png"), r"masks/p3\.png: no regular file \(a named pipe\)"),
    "a folder called like an image": (
        lambda r: (r / "images/x.png").mkdir(), r"images/x\.png: no regular file \(Is a directory"),
    "a link to nothing": (
        lambda r: (r / "images/x.png").symlink_to("gone"), r"images/x\.png: No such file"),
    "two endings": (
        lambda r: Image.new("RGB", (48, 40)).save(r / "images/p3.png"),
        r"images/p3\.jpg and .*images/p3\.png have the same name"),
    "two masks": (
        lambda r: Image.new("L", (48, 40)).save(r / "masks/p3.tif"),
        r"masks/p3\.png and .*masks/p3\.tif have the same name"),
    "listed twice": (
        lambda r: (r / "train.txt").write_text("p0\np1\np0\n"),
        r"train\.txt: p0 is listed 2 times"),
    "to train on and to measure by": (
        lambda r: (r / "val.txt").write_text("p4\np5\np6\n"),
        r"p4 and 1 more stands in .*train\.txt and in .*val\.txt"),
    "a value that is negative": (
        with_void, r"masks/p0\.tif: mask value -9999 is not in the label map"),
    "a colour that is no class": (
        colours, r"masks/p3\.png: mask colour 1,2,3 is not in the label map.*250,50,83->b"),
    "names with endings": (
        lambda r: (r / "train.txt").write_text("p0.jpg\n"), r"p0\.jpg .*names without ending"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_training_evaluation_and_preparation_refuse_alike(folder_set, fault):
    plant, message = FAULTS[fault]
    assert not faults_of(folder_set)
    plant(folder_set)
    data = data_of(folder_set, "dataset.splits.test=train")
    for check in (data.check, data.check_test):
        with pytest.raises(UserError, match=message) as raised:
            check()
        assert str(raised.value) in faults_of(folder_set)


def test_a_list_of_its_own_for_the_test(folder_set):
    (folder_set / "test.txt").write_text("p5\n")
    (folder_set / "train.txt").write_text("p0\np1\n")
    assert not faults_of(folder_set)  # what no list names, such as p3, is left alone
    data_of(folder_set, "dataset.splits.test=test").check()
    (folder_set / "test.txt").write_text("p1\n")
    assert re.search(r"p1 stands in .*train\.txt and in .*test\.txt", faults_of(folder_set)[0])
    (folder_set / "test.txt").write_text("")
    assert not faults_of(folder_set)
    found = faults_of(folder_set, "dataset.splits.test=test")
    assert any("test.txt: the split is empty" in fault for fault in found)


def test_a_rare_class_is_looked_for_in_all_files(folder_set):
    for index in range(6):
        mask = np.zeros((40, 48), np.uint8)
        mask[0] = index == 1
        write_pair(folder_set, f"p{index}", mask)
    data_of(folder_set, "dataset.preflight_masks=2").check()
    assert not faults_of(folder_set)


def test_a_test_split_may_show_one_class_where_nothing_is_void(folder_set):
    (folder_set / "test.txt").write_text("q\n")
    for value, expected in ((0, 0), (255, 1)):
        mask = np.zeros((40, 48), np.uint8)
        mask[0] = value
        write_pair(folder_set, "q", mask)
        assert len(faults_of(folder_set, "dataset.splits.test=test")) == expected


def deepen(root, factor=16, dark=()):
    """Images of 12 bits, some of them dark."""
    for path in sorted((root / "images").iterdir()):
        grey = np.asarray(Image.open(path).convert("L")).astype(np.uint16)
        path.unlink()
        grey[0, 0] = 255
        Image.fromarray(grey * (1 if path.stem in dark else factor)).save(path.with_suffix(".png"))


@pytest.mark.parametrize("dark", ["p0", "p5"])
def test_all_images_have_one_white_level(folder_set, caplog, dark):
    deepen(folder_set, dark=(dark,))
    with caplog.at_level(logging.INFO):
        source, other = (data_of(folder_set).source(split) for split in ("train", "val"))
    assert source.white == other.white == 4095
    assert source.read(int(dark[1]))[0].max() == 255 // 16
    assert other.read(0)[0].max() == 255
    (line,) = (line for line in caplog.messages if line.startswith("depth"))
    assert "8 of 8 images have more than 8 bits a channel, values up to 4080: 4095 is white" in line


def test_the_white_level_follows_the_files(folder_set):
    deepen(folder_set)
    assert data_of(folder_set).source("val").white == 4095
    Image.fromarray(np.full((40, 48), 5000, np.uint16)).save(folder_set / "images/p0.png")
    source = data_of(folder_set).source("val")
    assert source.white == 8191
    assert source.listing().key != data_of(folder_set, "dataset.source.white_level=511").source(
        "val").listing().key  # fmt: skip
    data = data_of(folder_set, "dataset.source.white_level=511")
    assert data.source("val").read(0)[0].max() == 255


def test_whole_and_floating_point_images_do_not_mix(folder_set):
    deepen(folder_set)
    (folder_set / "images/p1.png").unlink()
    Image.fromarray(np.ones((40, 48), np.float32)).save(folder_set / "images/p1.tif")
    with pytest.raises(UserError, match=r"p\d\.png holds whole and .*p1\.tif floating-point"):
        data_of(folder_set).source("train")


def test_images_of_8_bits_have_no_white_level(folder_set):
    assert data_of(folder_set).source("train").white is None


def test_shards_hold_images_by_the_white_level(folder_set):
    pytest.importorskip("webdataset", reason="pip install segtrain[shards]")
    deepen(folder_set, dark=("p0",))
    write_shards(data_of(folder_set), ["train"], 1, 128, folder_set / "shards")
    shards = data_of(folder_set, f"dataset.shards={folder_set / 'shards'}").source("train")
    files = {name: number for number, name in enumerate(names_of(folder_set))}
    for number in range(6):
        expected = data_of(folder_set).source("train").read(files[shards.name(number)])[0]
        assert np.array_equal(shards.read(number)[0], expected)
