"""Every kind of picture file, PIL image, array and tensor becomes upright 8-bit RGB."""

import numpy as np
import pytest
import torch
from PIL import Image

from segtrain.dataset import decoding
from segtrain.errors import UserError
from segtrain.picture import read_picture


def scene(height=30, width=40) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return pixels * share + 255 * (1 - share)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def write(path, kind):
    """A picture of the scene, and what its pixels should be."""
    pixels = scene()
    image, grey = Image.fromarray(pixels), pixels[..., 0]
    as_rgb = np.repeat(grey[..., None], 3, 2)
    alpha = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (30, 1))
    if kind == "rgba":
        image.putalpha(Image.fromarray(alpha))
        expected = on_white(pixels, alpha)
    elif kind == "grey and alpha":
        image = Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha)))
        expected = on_white(as_rgb, alpha)
    elif kind == "grey":
        image, expected = Image.fromarray(grey), as_rgb
    elif kind == "16 bits":
        image, expected = Image.fromarray(grey.astype(np.uint16) * 256 + 17), as_rgb
    elif kind == "cmyk":
        image, expected = image.convert("CMYK"), pixels
    elif kind in ("palette", "transparent palette"):
        image = image.convert("P", palette=Image.Palette.ADAPTIVE)
        expected = np.array(image.convert("RGB"))
        if kind == "transparent palette":
            image.info["transparency"] = 3
            expected[np.asarray(image) == 3] = 255
    elif kind == "bilevel":
        image = Image.fromarray(grey > 127)
        expected = np.repeat((grey > 127)[..., None] * 255, 3, 2)
    else:
        expected = pixels
    image.save(path, quality=100, subsampling=0)
    return expected


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.jpg", "rgb"), ("a.png", "rgb"), ("a.bmp", "rgb"), ("a.tif", "rgb"), ("a.jpg", "grey"),
     ("a.png", "grey"), ("a.png", "16 bits"), ("a.jpg", "cmyk"), ("a.png", "rgba"),
     ("a.tif", "rgba"), ("a.png", "grey and alpha"), ("a.png", "palette"),
     ("a.png", "transparent palette"), ("a.png", "bilevel"), ("a.jpg.png", "rgb")],
)  # fmt: skip
def test_files_and_opened_files(tmp_path, name, kind):
    expected = write(tmp_path / name, kind)
    tolerance = 6 if "jpg" in name else 1
    for given in (tmp_path / name, str(tmp_path / name), Image.open(tmp_path / name)):
        found = read_picture(given)
        assert found.pixels.shape == (30, 40, 3)
        assert found.pixels.dtype == np.uint8
        assert np.abs(found.pixels - expected.astype(float)).max() <= tolerance
        assert found.orientation == 1


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_pictures_upright(tmp_path, ending, orientation):
    pixels = scene(32, 48)
    back = {1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
            5: pixels.transpose(1, 0, 2), 6: np.rot90(pixels),
            7: pixels.transpose(1, 0, 2)[::-1, ::-1], 8: np.rot90(pixels, -1)}  # fmt: skip
    stored = Image.fromarray(np.ascontiguousarray(back[orientation]))
    stored.save(tmp_path / f"a.{ending}", exif=turned(orientation), quality=100, subsampling=0)
    for given in (tmp_path / f"a.{ending}", Image.open(tmp_path / f"a.{ending}")):
        found = read_picture(given)
        assert found.orientation == orientation
        assert found.pixels.shape == (32, 48, 3)
        assert np.abs(found.pixels - pixels.astype(float)).mean() < 3


def test_arrays_and_tensors():
    pixels = scene()
    alpha = np.full((30, 40, 1), 255, np.uint8)
    grey = np.repeat(pixels[..., :1], 3, 2)
    for given, expected in (
        (pixels, pixels),
        (pixels[..., 0], grey),
        (pixels[..., :1], grey),
        (np.concatenate([pixels, alpha], 2), pixels),
        (pixels.astype(np.uint16) * 256 + 99, pixels),
        (pixels / 255, pixels),
        ((pixels / 255).astype(np.float16), None),
        (torch.from_numpy(pixels).permute(2, 0, 1), pixels),
        (torch.from_numpy(pixels).permute(2, 0, 1) / 255, pixels),
        (torch.from_numpy(pixels).permute(2, 0, 1)[:1], grey),
        (np.ascontiguousarray(pixels[::-1])[::-1], pixels),
    ):
        found = read_picture(given).pixels
        assert found.flags.c_contiguous
        assert expected is None or np.array_equal(found, expected)
    found = read_picture(pixels).pixels
    pixels[:] = 0
    assert found.any()  # a picture of its own


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((4, 4), np.int64), "int64: expected uint8"),
        (np.full((4, 4, 3), 200.0), "0..1; give values in 0..255 as uint8"),
        (np.full((4, 4), np.nan), "nan"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"shape \(2, 4, 4, 3\)"),
        (torch.zeros(4, 4), r"shape \(4, 4\): expected \(3, H, W\)"),
        (np.zeros((0, 4, 3), np.uint8), "without pixels"),
        (3, "int: expected a path"),
        ("gone.jpg", "gone.jpg: No such file"),
        (".", "Is a directory"),
    ],
)
def test_what_is_no_picture_is_said(given, message):
    with pytest.raises(UserError, match=message):
        read_picture(given)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif", "a.tif", "alpha.png"])
def test_damaged_files_are_named(tmp_path, name):
    path = tmp_path / name
    write(path, "rgba" if name == "alpha.png" else "rgb")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=rf"{name}: .*(truncated|damaged)"):
        read_picture(path)
    path.write_text("a poem")
    with pytest.raises(UserError, match=rf"{name}: not a readable image \(6 bytes\)"):
        read_picture(path)


def test_pillows_limit_of_pixels_does_not_stop_large_pictures(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for kind in ("rgb", "rgba"):
        write(tmp_path / "a.png", kind)
        assert read_picture(tmp_path / "a.png").pixels.shape == (30, 40, 3)
    assert Image.MAX_IMAGE_PIXELS == 100
    assert not recwarn.list
    monkeypatch.setattr(decoding, "LARGEST", 1000)
    with pytest.raises(UserError, match="40x30 pixels; at most 1000"):
        read_picture(tmp_path / "a.png")
