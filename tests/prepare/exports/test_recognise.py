"""Which export a folder or file is, and the command that converts it."""

import pytest
from exporting import Converted, coco, cvat, labelme, picture, write, yolo

from segtrain.errors import UserError
from segtrain.prepare.exports.recognise import NotAnExportError, read_export

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
    code, _, err = segtrain("prepare", f"from={root}", f"to={target}")
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
