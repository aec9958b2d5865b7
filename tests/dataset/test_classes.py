"""What a folder's classes file may look like, and how masks are mapped by it."""

import numpy as np
import pytest

from segtrain.dataset.folder import folder_labels
from segtrain.errors import UserError
from segtrain.label_set import LabelSet


def labels_of(root, text, name="classes.txt"):
    (root / name).write_text(text)
    return folder_labels(str(root))


@pytest.mark.parametrize(
    ("text", "raw_to_train"),
    [
        ("\ufeff0 a\r\n1 b\r\n", {0: 0, 1: 1, 255: None}),
        ("0 a\n1 b\n-9999 void\n", {0: 0, 1: 1, -9999: None, 255: None}),
        ("a\nb\n-9999 void\n", {0: 0, 1: 1, -9999: None, 255: None}),
        ("0 void\n9 void\n1 a\n2 b\n", {0: None, 9: None, 1: 0, 2: 1, 255: None}),
        ("100000 a\n2000000000 b\n", {100000: 0, 2000000000: 1, 255: None}),
    ],
)
def test_values(tmp_path, text, raw_to_train):
    found = labels_of(tmp_path, text)
    assert found.names == ("a", "b")
    assert dict(found.raw_to_train) == raw_to_train
    raw = np.array([list(raw_to_train)])
    expected = [255 if train is None else train for train in raw_to_train.values()]
    assert found.encode(raw).tolist() == [expected]
    known = found.decode(found.encode(raw))
    assert np.array_equal(found.encode(known), found.encode(raw))


@pytest.mark.parametrize("value", [-9999, -1, 254, 256, 70000, 2**31 - 1])
@pytest.mark.parametrize("dtype", [np.int32, np.int64, ">u2"])
def test_any_other_value_is_named(tmp_path, value, dtype):
    raw = np.zeros((4, 4), dtype)
    if not np.can_cast(np.min_scalar_type(value), dtype):
        value %= 2**16
    raw[2, 2] = value
    with pytest.raises(UserError, match=f"mask value {value} is not in the label map"):
        labels_of(tmp_path, "0 a\n1 b\n-5 void\n").encode(raw)


CVAT = "# label:color_rgb:parts:actions\nground:0,0,0::\nred disc:250,50,83::\nvoid:9,9,9::\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [("classes.txt", "0,0,0 ground\n250, 50, 83 red disc\n9,9,9 void\n"), ("labelmap.txt", CVAT)],
)
def test_colours(tmp_path, name, text):
    found = labels_of(tmp_path, text, name)
    assert found.names == ("ground", "red disc")
    assert found.palette == ((0, 0, 0), (250, 50, 83))
    assert found.encode(np.array([[0, 0xFA3253, 0x090909]])).tolist() == [[0, 1, 255]]
    assert LabelSet.from_plain(found.to_plain()) == found
    with pytest.raises(UserError, match=r"mask colour 250,50,82 .*250,50,83->red disc"):
        found.encode(np.array([[0, 0xFA3252]]))
    with pytest.raises(UserError, match="mask colour 255,255,255 is not"):
        found.encode(np.array([[0xFFFFFF]]))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classes.txt", "0 a\nb\n2 c\n", "the line 'b' has no mask value"),
        ("classes.txt", "0,0,0 a\nb\n", "the line 'b' has no colour"),
        ("classes.txt", "0,0,0 a\n0,0,256 b\n", "b has the colour 0,0,256"),
        ("classes.txt", "0,0,0 a\n0,0,0 b\n", "colour 0 stands more than once"),
        ("labelmap.txt", "a:0,0,0::\nb::\n", "the line 'b::' has no colour"),
        ("classes.txt", "0 void\n1 thing\n", r"1 classes \('thing'\) besides void.*0 background"),
        ("classes.txt", "thing\n", r"1 classes \('thing'\)"),
        ("classes.txt", "\n".join(f"c{n}" for n in range(254)), "254 classes .*at most 253"),
        ("classes.txt", "", "0 classes"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, name, text, message):
    with pytest.raises(UserError, match=rf"{name}: .*{message}"):
        labels_of(tmp_path, text, name)


def test_neither_file(tmp_path):
    with pytest.raises(UserError, match=r"classes\.txt: no such file"):
        folder_labels(str(tmp_path))
