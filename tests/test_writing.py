"""Files that are there whole or not at all, and errors that name them."""

import ast
import errno
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from faults import largest_file
from PIL import Image

import segtrain
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


WRITERS_OF_OTHERS = {
    "write_text", "write_bytes", "save", "save_file", "savez_compressed", "tofile", "imwrite",
    "copyfile", "link", "rename", "extractall", "VideoWriter", "touch", "truncate",
}  # fmt: skip
GIVEN = "is given a name, or a folder, that `complete` puts in the place of the file's own"
LOCK = "the file is a lock or a sign: it counts that it is there, not what it holds"
LINES = "adds lines, of which a cut one is not read"
CHECKED = "under another name until its hash was right, or it was read back"
MARKED = "a marker beside the archive tells an extraction that was cut short, which is done anew"
MEMORY = "into memory"
TEMPORARY = "into a folder that goes when the command ends"
# Where segtrain writes a file otherwise than in a `with complete(...)`, and why.
IN_PLACE = {
    "benchmark/loader.py generate_pairs": TEMPORARY,
    "cli/app.py claim": LOCK,
    "cli/child.py run_process": LINES,
    "cli/manifest.py lock": LOCK,
    "cli/predict.py predict_share": LINES,
    "cli/predict.py save": "Prediction.save writes each file by `write_picture` or `write_json`",
    "dataset/cache.py cached_folder": LOCK,
    "dataset/coco_annotations.py pack": GIVEN,
    "dataset/counts.py build": GIVEN,
    "dataset/panoptic_annotations.py pack": GIVEN,
    "dataset/pixels.py write_pixels": GIVEN,
    "dataset/remote.py attempt": CHECKED,
    "dataset/shard_store.py _fetch": CHECKED,
    "dataset/shard_store.py _locked": LOCK,
    "dataset/shard_store.py _reserve": CHECKED,
    "dataset/voc.py build": GIVEN,
    "dataset/white.py build": GIVEN,
    "demo/application.py _picture": MEMORY,
    "demo/application.py _predict_video": TEMPORARY,
    "export/folder.py write_folder": GIVEN,
    "export/hub.py write_hub_folder": GIVEN,
    "export/onnx.py write_onnx": GIVEN,
    "export/torch_export.py write_program": GIVEN,
    "prepare/archives.py obtain": LOCK,
    "notebook.py picture": MEMORY,
    "prepare/exports/write.py _place_image": GIVEN,
    "prepare/exports/write.py link_image": GIVEN,
    "prepare/masks/planes.py write_planes": GIVEN,
    "prepare/masks/write.py write_lists": GIVEN,
    "prepare/masks/write.py write_folder": GIVEN,
    "prepare/recognition.py build": GIVEN,
    "prepare/extract.py _extract_tar": MARKED,
    "prepare/extract.py extract": MARKED,
    "prepare/fetch.py _receive": CHECKED,
    "prepare/preview.py _embed": MEMORY,
    "prepare/shards.py write_shards": CHECKED,
    "prepare/shards.py write_split": CHECKED,
    "prepare/shards.py write_tar": CHECKED,
    "report/examples.py _png": MEMORY,
    "report/examples.py webp": MEMORY,
    "report/video.py write": GIVEN,
    "submit/coco.py pack": GIVEN,
    "submit/packing.py pack_tar": GIVEN,
    "submit/packing.py pack_zip": GIVEN,
    "submit/panoptic.py pack": GIVEN,
    "submit/submission.py update": LINES,
    "cli/sweep_job.py run_apart": LOCK,
    "cli/sweep_job.py slot": LOCK,
    "sweep/sweeping.py _stop": LOCK,
    "sweep/sweeping.py only_one": LOCK,
    "zoo/cache.py locked": LOCK,
    "writing.py write_picture": MEMORY,
}


def writes(call: ast.Call) -> bool:
    """Whether a call writes, moves or opens a file to write it."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name not in ("open", "ZipFile"):
        return isinstance(call.func, ast.Attribute) and name in WRITERS_OF_OTHERS
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    modes = [getattr(argument, "body", argument) for argument in arguments]  # of a choice of two
    texts = [str(mode.value) for mode in modes if isinstance(mode, ast.Constant)]
    return any(re.fullmatch(r"[rwax][bt+]*(:gz)?", t) and set(t) & set("wax+") for t in texts)


def writing_places(node: ast.AST, function: str = "") -> Iterator[str]:
    """Names of the functions that write otherwise than in a `with complete(...)`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call) and writes(child):
            yield function
        items = child.items if isinstance(child, ast.With) else []
        entered = [getattr(item.context_expr, "func", None) for item in items]
        if "complete" not in [getattr(called, "id", "") for called in entered]:
            inside = child.name if isinstance(child, ast.FunctionDef) else function
            yield from writing_places(child, inside)


def test_every_file_is_written_whole_or_for_a_reason_otherwise():
    package = Path(segtrain.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        functions = writing_places(ast.parse(path.read_text(encoding="utf-8")))
        found |= {f"{path.relative_to(package)} {function}" for function in functions}
    assert found == IN_PLACE.keys()
