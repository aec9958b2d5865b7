import numpy as np
import pytest
from conftest import write_pair
from PIL import Image

from segtrain.dataset.files import read_image, read_mask
from segtrain.dataset.labels import VOC
from segtrain.dataset.pairs import ImageMaskPairs, Pair
from segtrain.errors import UserError


def pairs_of(root, *names):
    pairs = [Pair(str(root / f"images/{n}.jpg"), str(root / f"masks/{n}.png")) for n in names]
    return ImageMaskPairs(pairs, VOC, root)


def test_palette_masks_give_indices_not_colours(tmp_path):
    raw = np.array([[0, 15, 255], [20, 1, 2]], np.uint8)
    image = Image.fromarray(raw, mode="P")
    image.putpalette(list(range(256)) * 3)
    image.save(tmp_path / "mask.png")
    assert (read_mask(tmp_path / "mask.png") == raw).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_masks_keep_their_values(tmp_path, dtype):
    raw = np.array([[0, 200], [7, 255]], dtype) * (2 if dtype == np.uint16 else 1)
    Image.fromarray(raw).save(tmp_path / "mask.png")
    assert (read_mask(tmp_path / "mask.png") == raw).all()


def test_reads_rgb_and_train_ids(tmp_path):
    mask = np.full((20, 30), 255, np.uint8)
    mask[5:, 5:] = 12
    write_pair(tmp_path, "a", mask)
    image, train = pairs_of(tmp_path, "a").read(0)
    peer = np.asarray(Image.open(tmp_path / "images/a.jpg"))
    assert np.abs(image.astype(int) - peer).max() <= 3  # two JPEG decoders
    assert (train == mask).all()
    assert image.dtype == train.dtype == np.uint8


def test_size_mismatch_names_both_files(tmp_path):
    write_pair(tmp_path, "a", np.zeros((20, 30), np.uint8), image_size=(20, 31))
    with pytest.raises(UserError, match=r"a\.png.*30x20.*a\.jpg.*31x20"):
        pairs_of(tmp_path, "a").read(0)


def test_unknown_value_names_file_and_value(tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[3, 3] = 77
    write_pair(tmp_path, "a", mask)
    with pytest.raises(
        UserError, match=r"a\.png: mask value 77 is not in the label map.*255->void"
    ):
        pairs_of(tmp_path, "a").read(0)


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_truncated_jpeg_is_refused(tmp_path, keep):
    write_pair(tmp_path, "a", np.zeros((200, 300), np.uint8))
    path = tmp_path / "images/a.jpg"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(UserError, match=r"a\.jpg.*(truncated|not a readable)"):
        read_image(path)


def test_jpeg_with_bytes_behind_its_end_is_read(tmp_path):
    write_pair(tmp_path, "a", np.zeros((20, 30), np.uint8))
    path = tmp_path / "images/a.jpg"
    expected = read_image(path)
    path.write_bytes(path.read_bytes() + b"\0\0appended")
    assert (read_image(path) == expected).all()


@pytest.mark.parametrize("content", [b"", b"text, not an image"])
def test_unreadable_files_are_named(tmp_path, content):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    for read in (read_image, read_mask):
        with pytest.raises(UserError, match=r"x\.png"):
            read(path)


def test_missing_files_are_named(tmp_path):
    for read in (read_image, read_mask):
        with pytest.raises(UserError, match=r"gone\.png.*[Nn]o such file"):
            read(tmp_path / "gone.png")


def test_truncated_mask_is_refused(tmp_path):
    mask = np.random.default_rng(0).integers(0, 20, (100, 100), dtype=np.uint8)
    write_pair(tmp_path, "a", mask)
    path = tmp_path / "masks/a.png"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"a\.png"):
        read_mask(path)


def test_colour_masks_are_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "m.png")
    with pytest.raises(UserError, match="mode RGB"):
        read_mask(tmp_path / "m.png")
