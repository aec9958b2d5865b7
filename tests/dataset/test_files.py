"""Masks of every kind, and what is no image, mask or text at all."""

import os
import socket
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from segtrain.dataset.files import read_image, read_lines, read_list, read_mask
from segtrain.errors import UserError
from segtrain.picture import picture_pixels, read_picture

VALUES = np.arange(12, dtype=np.uint8).reshape(3, 4) % 4


@pytest.mark.parametrize(
    ("ending", "raw"),
    [("png", VALUES), ("bmp", VALUES), ("tif", VALUES),
     ("png", VALUES.astype(np.uint16) * 999), ("tif", VALUES.astype(np.uint16) * 999),
     ("tif", VALUES.astype(np.int32) * 1_000_000), ("tif", VALUES.astype(np.int32) - 9999),
     ("tif", VALUES.astype(np.int16) - 9999), ("tif", VALUES.astype(np.float32) - 9999)],
)  # fmt: skip
def test_masks_keep_their_values(tmp_path, ending, raw):
    path = tmp_path / f"m.{ending}"
    if raw.dtype == np.int16:
        cv2.imwrite(str(path), raw)
    else:
        Image.fromarray(raw).save(path)
    found = read_mask(path)
    assert np.issubdtype(found.dtype, np.integer)
    assert np.array_equal(found, raw)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_holds_class_numbers(tmp_path, bits):
    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    raw = VALUES % 2**bits
    packed = b""
    for row in raw:
        number = 0
        for value in row:
            number = number << bits | int(value)
        packed += b"\0" + (number << (-4 * bits) % 8).to_bytes(-(-4 * bits // 8))
    head = struct.pack(">IIBBBBB", 4, 3, bits, 0, 0, 0, 0)
    (tmp_path / "m.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(packed))
        + chunk(b"IEND", b"")
    )  # fmt: skip
    assert np.array_equal(read_mask(tmp_path / "m.png"), raw)


def test_a_mask_between_the_classes_is_refused(tmp_path):
    Image.fromarray(VALUES.astype(np.float32) / 2).save(tmp_path / "m.tif")
    with pytest.raises(UserError, match=r"m\.tif: .*not whole"):
        read_mask(tmp_path / "m.tif")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_colours_of_masks(tmp_path, mode):
    colours = np.array([(0, 0, 0), (255, 255, 255), (1, 1, 1), (9, 9, 9)], np.uint8)
    if mode != "L":
        colours[1:] = (250, 50, 83), (51, 221, 255), (0, 0, 1)
    image = Image.fromarray(colours[VALUES])
    if mode == "P":
        image = Image.fromarray(VALUES)
        image.putpalette(colours.tobytes())
    elif mode == "RGBA":
        image.putalpha(Image.fromarray(VALUES * 80))
    elif mode == "L":
        image = image.convert("L")
    image.save(tmp_path / "m.png")
    packed = np.array([int.from_bytes(bytes(colour.tolist())) for colour in colours])
    assert np.array_equal(read_mask(tmp_path / "m.png", colours=True), packed[VALUES])


def test_colours_are_8_bit(tmp_path):
    Image.fromarray(VALUES.astype(np.uint16)).save(tmp_path / "m.png")
    with pytest.raises(UserError, match=r"m\.png: a mask of mode I;16, .*8-bit colours"):
        read_mask(tmp_path / "m.png", colours=True)


@pytest.mark.parametrize("name", ["m.jpg", "m.png"])
def test_jpegs_are_no_masks_whatever_their_name(tmp_path, name):
    Image.fromarray(VALUES).save(tmp_path / name, "JPEG")
    with pytest.raises(UserError, match=rf"{name}: a JPEG as a mask.*-threshold 50%"):
        read_mask(tmp_path / name)


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def make_device(path):
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("make", "kind"),
    [(make_pipe, "a named pipe"), (make_socket, "a socket"), (make_device, "a device"),
     (os.mkdir, "Is a directory")],
)  # fmt: skip
def test_what_is_no_regular_file_is_never_opened(tmp_path, monkeypatch, make, kind):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "x.png") if make is not make_socket else make("x.png")
    for read in (read_image, read_mask, read_picture, picture_pixels, read_list):
        with pytest.raises(UserError, match=rf"x\.png: no regular file \({kind}\)"):
            read(tmp_path / "x.png")


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfa\r\n\r\n b c \r\n", b"a\nb c"])
def test_lists_may_come_from_any_editor(tmp_path, content):
    (tmp_path / "l.txt").write_bytes(content)
    assert read_lines(tmp_path / "l.txt") == read_list(tmp_path / "l.txt") == ["a", "b c"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le"])
def test_other_encodings_are_refused_by_file(tmp_path, encoding):
    (tmp_path / "l.txt").write_bytes("sol\nforêt\n".encode(encoding))
    with pytest.raises(UserError, match=r"l\.txt: not .*in UTF-8.*save it in UTF-8"):
        read_list(tmp_path / "l.txt")
