"""Images by the names that exports call them."""

import unicodedata

import pytest
from exporting import picture, write

from segtrain.errors import UserError
from segtrain.prepare.exports.finder import ImageFinder, split_of


@pytest.mark.parametrize(
    "name",
    [
        "deep/a b.jpg",
        "./deep/a b.jpg",
        "deep\\a b.jpg",
        "C:\\Users\\me\\photos\\deep\\a b.jpg",
        "/home/me/photos/deep/a b.jpg",
        "deep/a%20b.jpg",
        "https://labels.example.org/data/upload/1/a%20b.jpg?X-Amz-Date=2024",
        "s3://bucket/deep/a b.jpg",
        "/data/local-files/?d=deep/a%20b.jpg",
        "/data/upload/1/ab12cd34-a b.jpg",
        "Deep/A b.JPG",
        "deep/a b",
        "a b",
        "somewhere/else/a b.jpg",
    ],
)
def test_names_of_other_machines(tmp_path, name):
    picture(tmp_path / "photos/deep/a b.jpg")
    picture(tmp_path / "photos/deep/other.jpg")
    assert ImageFinder([tmp_path]).find(name) == tmp_path / "photos/deep/a b.jpg"


def test_accents_are_composed_in_either_way(tmp_path):
    picture(tmp_path / unicodedata.normalize("NFD", "größe.jpg"))
    assert ImageFinder([tmp_path]).find(unicodedata.normalize("NFC", "größe.jpg"))


def test_the_longest_end_decides(tmp_path):
    for place in ("x/one/a.jpg", "y/one/a.jpg", "y/two/a.jpg", "three/a.jpg"):
        picture(tmp_path / place)
    finder = ImageFinder([tmp_path])
    assert finder.find("/elsewhere/two/a.jpg") == tmp_path / "y/two/a.jpg"
    assert finder.find("/elsewhere/y/one/a.jpg") == tmp_path / "y/one/a.jpg"
    assert finder.find("/elsewhere/one/a.jpg") is None  # either
    assert finder.find("/elsewhere/one/a.jpg", tmp_path / "x") == tmp_path / "x/one/a.jpg"
    assert finder.find("") is None
    assert finder.find("..") is None
    assert finder.find("a.jpg\0") is None
    assert finder.find("a" * 5000 + ".jpg") is None
    assert finder.find("http://[x/a.jpg") is None


def test_one_file_is_not_two_images(tmp_path):
    picture(tmp_path / "a.jpg")
    finder = ImageFinder([tmp_path])
    assert finder.find("one/a.jpg") == finder.find("a.jpg") == finder.find("one\\a.jpg")
    with pytest.raises(UserError, match=r"found for two/a\.jpg as well as for one/a\.jpg"):
        finder.find("two/a.jpg")


def test_an_image_of_another_split_is_another_image(tmp_path):
    picture(tmp_path / "images/val/a.jpg")
    finder = ImageFinder([tmp_path])
    assert finder.find("train/a.jpg") is None
    assert finder.find("a.jpg", splits=frozenset({"train"})) is None
    assert finder.find("a.jpg", splits=frozenset({"val"})) == tmp_path / "images/val/a.jpg"


def test_an_image_that_its_path_names_elsewhere(tmp_path):
    picture(tmp_path / "elsewhere/train/a.jpg")
    (tmp_path / "in").mkdir()
    finder = ImageFinder([tmp_path / "in"])
    file = finder.find(str(tmp_path / "elsewhere/train/a.jpg"), splits=frozenset({"val"}))
    assert file == tmp_path / "elsewhere/train/a.jpg"
    assert finder.base_of(file) is None


def test_hidden_files_are_not_looked_at(tmp_path):
    for place in ("__MACOSX/a.jpg", "._a.jpg", ".ipynb_checkpoints/a.jpg"):
        picture(tmp_path / place)
    write(tmp_path / "a.txt", "")
    assert list(ImageFinder([tmp_path])) == []


def test_linked_folders_are_looked_into_once(tmp_path):
    picture(tmp_path / "elsewhere/deep/a.jpg")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/loop").symlink_to(tmp_path / "in")
    finder = ImageFinder([tmp_path / "in"])
    assert len(list(finder)) == 1
    assert finder.find("x/a.jpg").samefile(tmp_path / "elsewhere/deep/a.jpg")


def test_splits_are_words():
    assert split_of("instances_Train2017") == {"train"}
    assert split_of("constraint", "validation") == {"val"}
    assert split_of("testimony") == frozenset()
