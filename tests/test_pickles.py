"""Weights in pickles of other projects: read where they are arrays, refused where they are not."""

import pickle
import re
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from segtrain.architecture.weights import read_state_dict
from segtrain.errors import UserError
from segtrain.foreign import read_checkpoint

ARRAYS = {
    "stem.conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "by_column": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big_endian": np.arange(3, dtype=">f4"),
    "halves": np.ones(2, np.float16),
    "counter": np.array(7),
}


class Hostile:
    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("inside", ["model", "blobs"])
def test_arrays_of_a_pickle_become_tensors(protocol, inside):
    content = {inside: OrderedDict(ARRAYS), "__author__": "someone", "matching_heuristics": True}
    Path("w.pkl").write_bytes(pickle.dumps(content, protocol))
    state = read_state_dict("w.pkl")
    assert state.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(state[name].numpy(), array)
        assert state[name].is_contiguous()


def test_pickles_of_python_2():
    """`(lp0 ...` of Detectron: text and bytes are one there."""
    content = pickle.dumps({"model": {"w": np.arange(4, dtype=np.uint8)}}, 2)
    content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    Path("w.pkl").write_bytes(content)
    assert read_state_dict("w.pkl")["w"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (Hostile(Path.mkdir, Path("SEEN")), "pathlib"),
        (Hostile(eval, "__import__('os').mkdir('SEEN')"), "builtins.eval"),
        (Hostile(getattr, Path("SEEN"), "mkdir"), "builtins.getattr"),
        (np.array([Path("SEEN")], object), "which are no numbers"),
        (np.zeros(2, "V8"), "which are no numbers"),
        (np.array([None], object), "which are no numbers"),
        (Hostile(np.ndarray, (10**12,), "O"), ""),
        (Hostile(np.zeros, 10**12), "numpy"),
    ],
    ids=["class", "eval", "getattr", "object array", "void", "objects", "ndarray", "zeros"],
)  # fmt: skip
@pytest.mark.parametrize("file", ["w.pkl", "w.pth", "zip.zip"])
def test_hostile_ones_are_refused_and_run_nothing(content, named, file):
    content = {"model": {"w": content}}
    if file == "w.pkl":
        Path(file).write_bytes(pickle.dumps(content))
    else:
        torch.save(content, "w.pth")
        with zipfile.ZipFile("zip.zip", "w") as archive:
            archive.write("w.pth")
    with pytest.raises(UserError, match=re.escape(file)) as error:
        read_state_dict(file)
    if file == "w.pkl":
        assert named in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert "weights_only" not in str(error.value)  # whose other value would run it
    assert not Path("SEEN").exists()


def test_attributes_of_what_builds_arrays_cannot_be_set():
    """BUILD on the class itself, whose functions would be others for the next file."""
    spoils = b"cnumpy.core.multiarray\n_reconstruct\nN(S'__setstate__'\nNd\x86b."
    Path("w.pkl").write_bytes(spoils)
    with pytest.raises(UserError, match="w.pkl"):
        read_state_dict("w.pkl")
    Path("w.pkl").write_bytes(pickle.dumps({"model": ARRAYS}))
    assert read_state_dict("w.pkl").keys() == ARRAYS.keys()


def test_a_memo_of_a_large_number_takes_no_memory():
    Path("w.pkl").write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    with pytest.raises(UserError, match="holds no state dict"):
        read_state_dict("w.pkl")


def test_a_zip_with_one_file():
    torch.save({"state_dict": {"module.w": torch.randn(5000)}}, "w.pth")
    with zipfile.ZipFile("net-1234.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write("w.pth")
    assert torch.equal(read_state_dict("net-1234.zip")["w"], read_state_dict("w.pth")["w"])
    content = Path("net-1234.zip").read_bytes()
    Path("half.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"half\.zip: not a readable weights file"):
        read_state_dict("half.zip")


def test_a_zip_that_would_fill_the_memory():
    torch.save({"w": torch.zeros(1_000_000)}, "w.pth")
    with zipfile.ZipFile("bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write("w.pth")
    with pytest.raises(UserError, match="would become 4,00"):
        read_state_dict("bomb.zip")


def test_what_mmengine_keeps_beside_the_weights(monkeypatch):
    """Its buffers hold NumPy arrays and their own methods, and no class of its is imported."""
    module = types.ModuleType("mmengine.logging.history_buffer")
    code = (
        "class HistoryBuffer:\n"
        "    def __init__(self): self.__dict__.update(\n"
        "        log=numpy.arange(3.0), methods={'min': HistoryBuffer.min})\n"
        "    def min(self): pass\n"
    )
    module.numpy = np
    exec(code, module.__dict__)
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    message_hub = {"log_scalars": {"loss": module.HistoryBuffer()}, "best": np.float64(78.5)}
    content = {"state_dict": {"w": torch.ones(2)}, "meta": {"iter": 9}, "message_hub": message_hub}
    torch.save(content, "new.pth")
    torch.save(content, "old.pth", _use_new_zipfile_serialization=False)
    monkeypatch.delitem(sys.modules, module.__name__)
    for file in ("new.pth", "old.pth"):
        assert read_checkpoint(Path(file), "weights file")["meta"] == {"iter": 9}
        assert read_state_dict(file)["w"].tolist() == [1, 1]
