"""Pickles of other projects: plain values and NumPy's arrays, built by stand-ins that run nothing.

A pickle names the functions that build its objects. Here each of the few names that checkpoints
hold beside tensors stands for a class of this file, and any other name is refused. None of them
allocates more than the bytes that the file has for it.
"""

import pickle
from collections import OrderedDict
from typing import Any, BinaryIO

import numpy as np

KINDS = ("b1", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)), "f2", "f4", "f8")


class Ignored:
    """Something that inference does not need, made of anything."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class Kind:
    """A NumPy dtype of numbers."""

    def __init__(self, code: object, *copied: object) -> None:
        code = code.decode("ascii") if isinstance(code, bytes) else code
        if code not in KINDS:
            raise pickle.UnpicklingError(f"an array of {code!r}, which are no numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in (">", b">"):
            self.dtype = self.dtype.newbyteorder(">")


class Array:
    """A NumPy array; what it is made with says nothing of it yet."""

    def __init__(self, *arguments: object) -> None:
        self.values = np.zeros(0, np.float32)

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, by_column, content = state
        if not isinstance(kind, Kind):
            raise pickle.UnpicklingError("an array of something else than numbers")
        content = content.encode("latin1") if isinstance(content, str) else content
        values = np.frombuffer(content, kind.dtype).reshape(shape, order="F" if by_column else "C")
        self.values = np.ascontiguousarray(values, kind.dtype.newbyteorder("="))


class Scalar(Array):
    """A number of NumPy's."""

    def __init__(self, kind: Kind, content: bytes | str) -> None:
        self.__setstate__((1, (), kind, False, content))


class Buffer(Array):
    """An array by the protocol of Python 3.8."""

    def __init__(self, content: bytes | bytearray, kind: Kind, shape: tuple, order: str) -> None:
        self.__setstate__((1, shape, kind, order == "F", content))


class Latin1:
    """Bytes that an older protocol spells as text."""

    def __new__(cls, text: str, encoding: str = "latin1") -> bytes:  # type: ignore[misc]
        """The bytes, whatever the encoding is called."""
        return text.encode("latin1")


_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
NUMPY: dict[str, Any] = {
    **{f"{module}._reconstruct": Array for module in _MULTIARRAY},
    **{f"{module}.scalar": Scalar for module in _MULTIARRAY},
    **{f"numpy.{core}.numeric._frombuffer": Buffer for core in ("core", "_core")},
    "numpy.ndarray": "ndarray",  # an argument of `_reconstruct`, which needs none
    "numpy.dtype": Kind,
    "_codecs.encode": Latin1,
    "collections.OrderedDict": OrderedDict,
}
# What trainings of MMEngine keep beside the weights: scores of the past, as NumPy numbers in
# `HistoryBuffer`s, which hold methods of their own (`getattr`).
IGNORED = (
    *(f"{module}.{name}" for module in _MULTIARRAY for name in ("_reconstruct", "scalar")),
    "numpy.ndarray", "numpy.dtype", "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr", "__builtin__.getattr",
)  # fmt: skip


class _Unpickler(pickle._Unpickler):
    """Python's own: the one in C can be made to take memory without end by a number in the file."""

    dispatch = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in NUMPY:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not built")
        return NUMPY[f"{module}.{name}"]

    def load_build(self) -> None:
        state = self.stack.pop()
        if type(self.stack[-1]) not in (Array, Kind):
            raise pickle.UnpicklingError("it sets attributes of something else than an array")
        self.stack[-1].__setstate__(state)

    dispatch[pickle.BUILD[0]] = load_build


def read_arrays(file: BinaryIO) -> Any:
    """What a pickle of plain values and NumPy arrays holds, with tensors for the arrays.

    Args:
        file: opened for reading.

    Raises:
        pickle.UnpicklingError: it names anything else, which is not built.
        Exception: of many kinds, where it is damaged.
    """
    return _with_tensors(_Unpickler(file, encoding="latin1").load())


def _with_tensors(content: Any) -> Any:
    import torch

    if isinstance(content, dict):
        return {key: _with_tensors(value) for key, value in content.items()}
    return torch.from_numpy(content.values.copy()) if isinstance(content, Array) else content
