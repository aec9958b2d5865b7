"""Files that are there whole or not at all, and errors that name them."""

import errno
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from faults import largest_file
from PIL import Image

from segtrain.writing import TorchFile, complete, naming, write_json, write_picture


def write_folder(path: Path, size: int) -> None:
    with complete(path) as partial:
        partial.mkdir()
        (partial / "part").write_bytes(bytes(size))


def write_checkpoint(path: Path, size: int) -> None:
    with complete(path) as partial, open(partial, "wb") as file, TorchFile(file) as writer:
        torch.save({"weights": torch.zeros(size, dtype=torch.uint8)}, writer)


WRITERS = {
    "folder": write_folder,
    "checkpoint": write_checkpoint,
    "json": lambda path, size: write_json(path, "x" * size),
    "picture": lambda path, size: write_picture(noise(size), path.with_suffix(".png")),
    "jpeg": lambda path, size: write_picture(noise(size), path.with_suffix(".jpg"), quality=92),
}


def noise(size: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size // 48 + 1, 16, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("limit", [0, 1, 3000, 9000])
@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_leaves_what_was_there(tmp_path, kind, limit):
    folder = tmp_path / "above"
    WRITERS[kind](folder / "written", 10)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with largest_file(limit), pytest.raises(OSError, match="File too large") as caught:
        WRITERS[kind](folder / "written", 200_000)
    assert Path(caught.value.filename).stem == "written"
    assert caught.value.errno == errno.EFBIG
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_a_whole_picture_and_checkpoint(tmp_path):
    picture = noise(5000)
    write_picture(picture, tmp_path / "a.png")
    assert np.array_equal(Image.open(tmp_path / "a.png"), picture)
    write_checkpoint(tmp_path / "a.ckpt", 5000)
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert torch.equal(content["weights"], torch.zeros(5000, dtype=torch.uint8))


def test_a_folder_in_the_place_of_a_file(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(OSError) as caught:  # noqa: PT011  (which of them, the system chooses)
        write_json(tmp_path / "a", {})
    assert caught.value.filename == str(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_torch_file_raises_the_first_error_at_its_end():
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, self.read().decode())

    with pytest.raises(OSError, match="first"), TorchFile(Full(b"first")) as writer:
        writer.writelines([b"one", b"two"])


def test_errors_that_are_not_the_disk_s_stay_what_they_are(tmp_path):
    with pytest.raises(ZeroDivisionError), naming(tmp_path):
        raise ZeroDivisionError
    with pytest.raises(OSError, match="picture") as caught, naming(tmp_path):
        raise OSError("not a picture")  # of a reader, not the system
    assert caught.value.filename is None
    with pytest.raises(FileNotFoundError) as caught, naming(tmp_path):
        (tmp_path / "other").read_bytes()
    assert caught.value.filename == str(tmp_path / "other")
