"""One rule for transparency, bit depth, colour space and size, whoever reads an image."""

import cv2
import numpy as np
import pytest
from PIL import Image

from segtrain.dataset import decoding
from segtrain.dataset.decoding import white_level
from segtrain.dataset.files import read_image, read_mask
from segtrain.errors import UserError
from segtrain.picture import read_picture


def scene(height=30, width=40) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    scene = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    scene[0, 0], scene[-1, -1] = 0, 255  # all of the range, by which depths are told
    return scene


PIXELS = scene()
GREY = np.repeat(PIXELS[..., :1], 3, 2)
ALPHA = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (30, 1))
SHARE = ALPHA[..., None] / 255


def save(path, array):
    """With OpenCV where Pillow has no such mode."""
    try:
        Image.fromarray(array).save(path)
    except TypeError:
        assert cv2.imwrite(str(path), array[..., [2, 1, 0, 3][: array.shape[2]]])


KINDS = {
    "rgb.png": (PIXELS, PIXELS),
    "alpha.png": (np.dstack([PIXELS, ALPHA]), PIXELS * SHARE + 255 * (1 - SHARE)),
    "alpha.tif": (np.dstack([PIXELS, ALPHA]), PIXELS * SHARE + 255 * (1 - SHARE)),
    "grey and alpha.png": (np.dstack([PIXELS[..., 0], ALPHA]), GREY * SHARE + 255 * (1 - SHARE)),
    "16 bits and alpha.png": (
        np.dstack([PIXELS, ALPHA]).astype(np.uint16) * 257, PIXELS * SHARE + 255 * (1 - SHARE)),
    "10 bits.png": (PIXELS[..., 0].astype(np.uint16) * 4, GREY),
    "12 bits.png": (PIXELS[..., 0].astype(np.uint16) * 16, GREY),
    "12 bits.tif": (PIXELS[..., 0].astype(np.uint16) * 16, GREY),
    "12 bits, colours.png": (PIXELS.astype(np.uint16) * 16, PIXELS),
    "14 bits, colours.tif": (PIXELS.astype(np.uint16) * 64, PIXELS),
    "16 bits.png": (PIXELS[..., 0].astype(np.uint16) * 257, GREY),
    "32 bits.tif": (PIXELS[..., 0].astype(np.int32) * 257, GREY),
    "float to 1.tif": (PIXELS[..., 0].astype(np.float32) / 255, GREY),
    "float to 255.tif": (PIXELS[..., 0].astype(np.float32), GREY),
    "float to 1, colours.tif": (PIXELS.astype(np.float32) / 255, PIXELS),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_training_and_prediction_read_alike_and_keep_the_range(tmp_path, name):
    stored, expected = KINDS[name]
    save(tmp_path / name, stored)
    for found in (read_image(tmp_path / name), read_picture(tmp_path / name).pixels):
        assert found.dtype == np.uint8
        assert found.shape == (30, 40, 3)
        assert np.abs(found - expected.astype(float)).max() <= 1
    assert np.array_equal(found, read_image(tmp_path / name))


def test_a_transparent_palette_is_put_on_white(tmp_path):
    image = Image.fromarray(PIXELS).convert("P", palette=Image.Palette.ADAPTIVE)
    image.info["transparency"] = 3
    image.save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")
    assert (found[np.asarray(image) == 3] == 255).all()
    assert np.array_equal(found, read_picture(tmp_path / "a.png").pixels)


@pytest.mark.parametrize("kind", ["L", "I;16", "F"])
def test_a_turned_tiff_is_turned_once(tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = PIXELS[..., 0]
    stored = {"L": grey, "I;16": grey.astype(np.uint16) * 257, "F": grey.astype(np.float32) / 255}
    Image.fromarray(np.ascontiguousarray(np.rot90(stored[kind]))).save(
        tmp_path / "a.tif", exif=exif
    )
    found = read_picture(tmp_path / "a.tif")
    assert found.orientation == 6
    assert np.abs(found.pixels - GREY.astype(float)).max() <= 1


@pytest.mark.parametrize(
    ("highest", "whole", "white"),
    [(0, True, 255), (255, True, 255), (256, True, 511), (3360, True, 4095), (4095, True, 4095),
     (4096, True, 8191), (65535, True, 65535), (0.3, False, 1), (1.0, False, 1),
     (1.5, False, 255), (255.0, False, 255), (10000.5, False, 16383)],
)  # fmt: skip
def test_white_is_the_largest_number_of_as_many_bits(highest, whole, white):
    assert white_level(highest, whole) == white


def test_a_white_level_holds_for_dark_files_too(tmp_path):
    for name, factor in (("bright.png", 16), ("dark.png", 1)):
        save(tmp_path / name, PIXELS[..., 0].astype(np.uint16) * factor)
    assert np.array_equal(read_image(tmp_path / "bright.png", 4095), GREY)
    assert np.array_equal(read_image(tmp_path / "dark.png", 4095), GREY // 16)
    assert read_image(tmp_path / "bright.png", 1023).max() == 255


@pytest.mark.parametrize("lost", [-9999, np.nan, np.inf])
def test_numbers_that_are_no_brightness_are_refused(tmp_path, lost):
    values = PIXELS[..., 0].astype(np.float32) / 255
    values[3, 3] = lost
    save(tmp_path / "a.tif", values)
    for read in (read_image, read_picture):
        with pytest.raises(UserError, match=r"a\.tif: pixels in .*: expected numbers from 0 on"):
            read(tmp_path / "a.tif")


def test_one_limit_of_pixels_for_images_and_masks(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    save(tmp_path / "a.png", PIXELS[..., 0])
    for read in (read_image, read_picture, read_mask):
        read(tmp_path / "a.png")
    monkeypatch.setattr(decoding, "LARGEST", 1000)
    for read in (read_image, read_picture, read_mask):
        with pytest.raises(UserError, match=r"a\.png: 40x30 pixels; at most 1000 are read"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["12 bits.png", "12 bits.tif", "float to 1, colours.tif"])
def test_damaged_files_of_many_bits_are_named(tmp_path, name):
    path = tmp_path / name
    save(path, KINDS[name][0])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for read in (read_image, read_picture):
        with pytest.raises(UserError, match=rf"{name}: .*(truncated|damaged|not a readable)"):
            read(path)
