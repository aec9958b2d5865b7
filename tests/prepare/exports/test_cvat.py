"""CVAT 1.1: shapes, layers, subsets, tracks, and files that are refused."""

import shutil

import pytest
from exporting import CVAT, HEIGHT, WIDTH, Converted, cvat, cvat_video, picture, write

from segtrain.errors import UserError
from segtrain.prepare.exports.recognise import read_export

pytestmark = pytest.mark.usefixtures("own_cache")


def test_cvat(tmp_path):
    done = Converted(cvat(tmp_path / "in"), tmp_path / "out")
    assert done.export.kind == "CVAT 1.1 for images"
    found = done.found("sub/a.jpg")
    assert ("bolt", 200) in found  # both shapes of group 4
    assert ("nut", 900) in found
    assert ("nut", 3) in found
    assert ("nut", 80) in found
    mask = done.masks["sub/a.jpg"]
    assert (mask[10:20, 10:20] == 1).all()  # over the box, which lies in a lower layer
    assert mask[5, 5] == 2
    assert mask[20, 62:65].tolist() == [2, 2, 2]
    assert mask[53, 60] == 2  # the ellipse stands upright
    assert mask[45, 68] == 0
    assert (mask[32:52, 9:13] == 2).all()  # so does the box
    dropped = {reason: len(places) for reason, places in done.export.dropped.items()}
    assert dropped == {
        "annotations of type polyline, which cover no area": 1,
        "annotations of type tag, which cover no area": 1,
        "shapes that cannot be read": 1,
        "shapes without a label": 1,
    }


def test_cvat_keeps_subsets_with_one_file_name_apart(tmp_path):
    root, entries = tmp_path / "in", []
    for number, subset in enumerate(("Train", "Validation", "Test")):
        picture(root / f"images/{subset}/a.jpg")
        box = f'<box label="bolt" xtl="0" ytl="0" xbr="{10 + number}" ybr="10"/>'
        entries.append(f'<image id="0" name="a.jpg" subset="{subset}" width="{WIDTH}" '
                       f'height="{HEIGHT}">{box}</image>')  # fmt: skip
    write(root / "annotations.xml", CVAT.format("".join(entries)))
    done = Converted(root, tmp_path / "out")
    assert done.splits == {"test": ["Test/a.jpg"], "train": ["Train/a.jpg"],
                           "val": ["Validation/a.jpg"]}  # fmt: skip
    assert done.found("Validation/a.jpg") == [("bolt", 110)]
    (root / "images/Test/a.jpg").unlink()
    other = Converted(root, tmp_path / "other")
    assert other.export.dropped == {"images that are not there": ["annotations.xml: Test/a.jpg"]}
    assert other.found("Train/a.jpg") == [("bolt", 100)]
    picture(tmp_path / "flat/a.jpg")
    shutil.rmtree(root / "images")
    with pytest.raises(UserError, match="found for Validation/a.jpg as well as for Train/a.jpg"):
        read_export(root, tmp_path / "flat")


def test_cvat_for_video(tmp_path):
    done = Converted(cvat_video(tmp_path / "in"), tmp_path / "out")
    assert done.export.kind == "CVAT 1.1 for video"
    assert len(done.masks) == 6
    for frame in range(6):
        found = done.found(f"frame_{frame:06}.png")
        assert found == ([("bolt", 100)] if frame < 4 else [])
    assert done.objects["frame_000001.png"]["boxes"].tolist() == [[10, 0, 20, 10]]


def test_broken_tracks_are_told(tmp_path):
    picture(tmp_path / "in/frame_000000.png")
    box = '<box frame="{}" outside="0" xtl="{}" ytl="0" xbr="10" ybr="10"/>'
    tracks = "".join(
        f'<track id="{number}" label="bolt">{"".join(boxes)}</track>'
        for number, boxes in enumerate((
            [], [box.format("z", 0)], [box.format(0, "q")],
            [box.format(0, 0), box.format(3_000_000_000, "q")],
        ))
    )  # fmt: skip
    write(tmp_path / "in/annotations.xml", CVAT.format(tracks))
    done = Converted(tmp_path / "in", tmp_path / "out")
    assert done.found("frame_000000.png") == [("bolt", 100)]
    assert done.export.dropped["shapes that cannot be read"] == ["annotations.xml: track 2 frame 0"]


@pytest.mark.parametrize(
    "declaration",
    ['<!DOCTYPE a [<!ENTITY e "x">]>', '<!DOCTYPE annotations SYSTEM "file:///etc/hostname">'],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xml_that_declares_entities_is_refused(tmp_path, declaration, encoding):
    root = cvat(tmp_path / "in")
    path = root / "annotations.xml"
    text = path.read_text().replace('encoding="utf-8"', f'encoding="{encoding}"')
    path.write_bytes(text.replace("?><annotations", f"?>{declaration}<annotations")
                     .encode(encoding))  # fmt: skip
    with pytest.raises(UserError, match=r"annotations\.xml: declares a document type"):
        read_export(root, None)


def box(side, **attributes):
    text = " ".join(f'{key}="{value}"' for key, value in attributes.items())
    return f'<box label="bolt" xtl="0" ytl="0" xbr="{side}" ybr="10" {text}/>'


def test_cvat_for_a_task_with_a_subset(tmp_path):
    for number, subset in enumerate(("Train", "Validation")):
        root = tmp_path / f"in/{subset}"
        cvat(root, box(10 + number))
        text = (root / "annotations.xml").read_text()
        (root / "annotations.xml").write_text(
            text.replace("<task>", f"<task><subset>{subset}</subset>")
        )
    done = Converted(tmp_path / "in", tmp_path / "out")
    assert done.splits == {
        "train": ["Train/images/sub/a.jpg"],
        "val": ["Validation/images/sub/a.jpg"],
    }
    assert done.found("Validation/images/sub/a.jpg") == [("bolt", 110)]


def test_labels_without_an_area_are_no_classes(tmp_path):
    root = cvat(tmp_path / "in", box(10))
    text = (root / "annotations.xml").read_text()
    more = "".join(
        f"<label><name>{kind}</name><type>{kind}</type></label>"
        for kind in ("tag", "skeleton", "polyline", "mask", "any")
    )
    joint = "<label><name>knee</name><type>points</type><parent>skeleton</parent></label>"
    text = text.replace("</labels>", f"{more}{joint}</labels>")
    (root / "annotations.xml").write_text(text.replace("task>", "project>"))
    assert Converted(root, tmp_path / "out").classes == ("bolt", "nut", "mask", "any")


def test_images_whose_names_have_no_ending(tmp_path):
    root = cvat(tmp_path / "in", box(10), name="frame_000007")
    picture(root / "images/frame_000007.PNG")
    assert Converted(root, tmp_path / "out").found("frame_000007.PNG") == [("bolt", 100)]


def test_files_without_images_say_how_to_name_them(tmp_path):
    root = cvat(tmp_path / "in", box(10))
    (root / "images/sub/a.jpg").rename(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"images that are not there: .*sub/a\.jpg\n +images=<fold"):
        Converted(root, tmp_path / "out")
    picture(tmp_path / "photos/a.jpg")
    done = Converted(root / "annotations.xml", tmp_path / "out", tmp_path / "photos")
    assert done.found("photos/a.jpg") == [("bolt", 100)]
    with pytest.raises(UserError, match="gone: no such folder; images=<folder>"):
        Converted(root, tmp_path / "other", tmp_path / "gone")


def test_one_frame_of_two_videos_is_refused(tmp_path):
    for video in ("a", "b"):
        picture(tmp_path / f"in/{video}/frame_000000.png")
    write(tmp_path / "in/annotations.xml",
          CVAT.format(f'<track id="0" label="bolt">{box(10, frame=0)}</track>'))  # fmt: skip
    with pytest.raises(UserError, match=r"a/frame_000000\.png.* are of one frame"):
        read_export(tmp_path / "in", None)


def test_tracks_of_one_group_are_one_object(tmp_path):
    picture(tmp_path / "in/frame_000000.png")
    right = '<box frame="0" xtl="40" ytl="0" xbr="50" ybr="10"/>'
    tracks = "".join(
        f'<track id="{number}" label="bolt" group_id="{group}">{shape}</track>'
        for number, (group, shape) in enumerate(((2, box(10, frame=0)), (2, right), (0, right)))
    )
    write(tmp_path / "in/annotations.xml", CVAT.format(tracks))
    done = Converted(tmp_path / "in", tmp_path / "out")
    assert done.found("frame_000000.png") == [("bolt", 200), ("bolt", 100)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not a readable XML file"),
        (b"<annotations><image>", "not a readable XML file"),
        (b'<?xml version="1.0" encoding="gb2312"?><annotations/>', "not a readable XML file"),
        (b'<?xml version="1.0" encoding="none"?><annotations/>', "not a readable XML file"),
        (b"<annotations>\xff</annotations>", "not a readable XML file"),
    ],
)
def test_xml_that_cannot_be_read_is_told(tmp_path, text, message):
    (tmp_path / "annotations.xml").write_bytes(text)
    with pytest.raises(UserError, match=rf"annotations\.xml: {message}"):
        read_export(tmp_path, None)


@pytest.mark.parametrize("number", ["²", "9" * 5000, "1e3", "-1", ""])
def test_numbers_that_are_none_are_told(tmp_path, number):
    shapes = box(10, z_order=number) + (
        f'<mask label="nut" rle="{number}" left="60" top="20" width="5" height="2"/>'
    )
    root = cvat(tmp_path / "in", shapes, width=number)
    done = Converted(root, tmp_path / "out")
    assert done.found("sub/a.jpg") == [("bolt", 100)]
    assert sum(map(len, done.export.dropped.values())) == 1
