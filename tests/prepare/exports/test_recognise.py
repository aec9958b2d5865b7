"""Which export a folder or file is, and the command that converts it."""

import gc
import os
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from exporting import HEIGHT, WIDTH, Converted, coco, cvat, labelme, picture, write, yolo
from PIL import Image

from segtrain.errors import UserError
from segtrain.prepare.exports.recognise import NotAnExportError, read_export
from segtrain.prepare.exports.write import write_export

pytestmark = pytest.mark.usefixtures("own_cache")


def test_sizes_that_no_image_has_are_not_drawn(tmp_path):
    labelme(tmp_path / "labelme", imageHeight=99_999, imageWidth=99_999)
    cvat(tmp_path / "cvat", width=99_999, height=99_999)
    coco(tmp_path / "coco", width=99_999, height=99_999)
    for tool in ("labelme", "cvat", "coco"):
        with pytest.raises(UserError, match="images of another size .*80x60, not 99999x99999"):
            Converted(tmp_path / tool, tmp_path / f"out-{tool}")


def test_what_is_no_export_is_refused(tmp_path):
    picture(tmp_path / "in/a.jpg")
    for path, message in ((tmp_path / "in", "not an export that can be read; expected YOLO"),
                          (tmp_path / "gone", "no such file or folder"),
                          (tmp_path / "in/a.jpg", "not an export")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            read_export(path, None)
    with pytest.raises(NotAnExportError):
        read_export(tmp_path / "in", None)
    write(tmp_path / "panoptic/p.json",
          {"images": [], "categories": [], "annotations": [{"segments_info": []}]})  # fmt: skip
    with pytest.raises(NotAnExportError):
        read_export(tmp_path / "panoptic", None)
    write(tmp_path / "in/x.json", "{")
    with pytest.raises(UserError, match=r"x\.json: not readable JSON"):
        read_export(tmp_path / "in", None)
    (tmp_path / "in/x.json").unlink()
    labelme(cvat(tmp_path / "in"))
    with pytest.raises(UserError, match="several exports"):
        read_export(tmp_path / "in", None)


def test_command(tmp_path, segtrain):
    root = yolo(tmp_path / "in (1), a=b")
    target = tmp_path / "out größe"
    code, out, err = segtrain("prepare", f"from={root}", f"to={target}")
    assert code == 0, err
    assert "recognised  YOLO segmentation: 2 images, classes bolt, nut" in out
    assert "train.json 1, val.json 1" in out
    assert (target / "images/train/a.jpg").is_file()
    archive = shutil.make_archive(str(tmp_path / "in (1), a=b"), "zip", root)
    code, _, err = segtrain("prepare", f"from={archive}", f"to={target}")
    assert not list(tmp_path.glob(".segtrain*"))
    assert (code, "is not empty; give to=<another folder>" in err) == (2, True)
    code, _, err = segtrain("prepare", f"from={root}")
    assert (code, "belong together" in err) == (2, True)


def test_other_real_exports(tmp_path, annotation_exports):
    done = Converted(annotation_exports / "labelme/primitives", tmp_path / "a")
    assert [name for name, _ in done.found("primitives.jpg")] == [
        "rectangle", "circle", "rectangle", "polygon", "octagon",
    ]  # fmt: skip
    done = Converted(annotation_exports / "cvat_images/export_project", tmp_path / "b")
    assert {split: len(names) for split, names in done.splits.items()} == {
        "train": 2, "val": 2, "test": 2,
    }  # fmt: skip
    assert done.found("Validation/img0.jpg") == [("label1", 8)]
    done = Converted(annotation_exports / "cvat_images/export_task", tmp_path / "c")
    assert sorted(done.masks) == ["img0.jpg", "img1.jpg"]


@pytest.mark.parametrize("ending", ["zip", "tar.gz", "tar"])
def test_archives_are_unpacked_beside_the_target(tmp_path, ending):
    kind = {"zip": "zip", "tar.gz": "gztar", "tar": "tar"}[ending]
    coco(tmp_path / "in")
    file = shutil.make_archive(str(tmp_path / "export"), kind, tmp_path / "in")
    export = read_export(Path(file), None, tmp_path / "new/place")
    assert [path.parent for path in (tmp_path / "new/place").iterdir()] == [tmp_path / "new/place"]
    write_export(export, tmp_path / "new/place/out", 0.5, 1)
    del export
    gc.collect()
    assert [path.name for path in (tmp_path / "new/place").iterdir()] == ["out"]
    assert (tmp_path / "new/place/out/images/train/a.jpg").is_file()


def test_damaged_archives_are_told_and_leave_nothing(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../train.json", "{}")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("sub\\train.json", '{"images": [')
        archive.writestr("__MACOSX/sub/._train.json", "\0\5")
    write(tmp_path / "c.zip", "PK")
    for name, message in (("a", "lies outside the folder"),
                          ("b", r"b\.zip/sub/train\.json: not readable JSON"),
                          ("c", "cannot be extracted")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            read_export(tmp_path / f"{name}.zip", None, tmp_path / "room")
    assert list((tmp_path / "room").iterdir()) == []


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    labelme(tmp_path)
    for name in ("annotations.xml", "x.json", "data.yaml", "b.jpg"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(UserError, match="no regular file"):
            read_export(tmp_path / name, None)
    assert list(read_export(tmp_path, None).pictures) == ["a.jpg"]


def test_an_archive_larger_than_the_disk_is_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", bytes(1 << 20))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 19))
    with pytest.raises(UserError, match=r"a\.zip: unpacks to 1\.0 MB, .* 0\.5 MB are free"):
        read_export(tmp_path / "a.zip", None, tmp_path)


def test_boxes_of_pascal_voc_are_refused(tmp_path):
    write(tmp_path / "annotations/a.xml",
          "<annotation><folder>annotations</folder><object/></annotation>")  # fmt: skip
    with pytest.raises(NotAnExportError, match=r"a\.xml: an XML file of Pascal VOC tells boxes"):
        read_export(tmp_path, None)


def test_splits_that_are_filled(tmp_path, caplog):
    """Whatever splits an export has, there are a train and a val."""
    for number, (given, found) in enumerate((
        ({"train": 2, "val": 1}, {"train": 2, "val": 1}),
        ({"train": 4}, {"train": 2, "val": 2}),
        ({"val": 4}, {"train": 2, "val": 2}),
        ({"test": 4}, {"train": 2, "val": 2}),
        ({"val": 4, "test": 1}, {"train": 2, "val": 2, "test": 1}),
        ({"train": 1, "test": 1}, {"train": 1, "val": 1, "test": 1}),
    )):  # fmt: skip
        root = tmp_path / f"in{number}"
        for split, count in given.items():
            for index in range(count):
                labelme(root / split, f"p{index}")
        done = Converted(root, tmp_path / f"out{number}")
        assert {split: len(names) for split, names in done.splits.items()} == found


def test_files_that_belong_to_nothing_are_noted(tmp_path):
    root = labelme(tmp_path / "in")
    picture(root / "b.jpg")
    write(root / "b.json", {"version": "5.0.1", "imagePath": "b.jpg", "shapes": None})
    assert read_export(root, None).noted == {
        "JSON files of another kind, which were not read": ["b.json"],
        "images that the export does not name": ["b.jpg"],
    }


def test_splits_by_lists(tmp_path):
    root = tmp_path / "in"
    for name in ("a", "b", "c", "d"):
        labelme(root, name)
    write(root / "train.txt", "\ufeffa\r\nb.jpg\r\n")
    write(root / "valid.txt", "./c\nx/gone.jpg\n")
    done = Converted(root, tmp_path / "out")
    assert done.splits == {"train": ["a.jpg", "b.jpg"], "val": ["c.jpg"]}
    assert done.export.dropped["names in lists of no image"] == ["valid.txt: x/gone.jpg"]
    assert done.export.dropped["images that no list names"] == ["d.jpg"]


def test_images_in_a_folder_of_the_export_are_given_twice(tmp_path):
    root = coco(tmp_path / "in", "annotations/instances_default.json", file_name="x/y/a.jpg")
    picture(root / "deep/photos/a.jpg")
    (root / "annotations/a.jpg").unlink()
    done = Converted(root, tmp_path / "out", root / "deep/../deep/photos")
    assert list(done.masks) == ["deep/photos/a.jpg"]


def test_sizes_of_images_as_they_are_stored_are_explained(tmp_path):
    root = labelme(tmp_path / "in", imageHeight=WIDTH, imageWidth=HEIGHT)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (HEIGHT, WIDTH)).save(root / "a.jpg", exif=exif)
    places = read_export(root, None).dropped["images of another size than the export says"]
    assert places == [
        "a.json (80x60, not 60x80, as before it is turned upright by its EXIF orientation)"
    ]
