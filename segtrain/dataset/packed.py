"""Long lists as a few flat arrays, so that loader workers share their memory.

Python counts references inside every object: a worker that only reads a list of strings writes to
the pages they lie on, and so gets copies of them, epoch after epoch. An array is one object.
"""

from collections.abc import Iterable, Sequence

import numpy as np


class PackedStrings(Sequence):
    """A fixed list of strings in one array of UTF-8 bytes and one of offsets."""

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [string.encode() for string in strings]
        self.offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(string) for string in encoded], out=self.offsets[1:])
        self.data = np.frombuffer(b"".join(encoded), np.uint8)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} strings")
        start, end = self.offsets[index % len(self)], self.offsets[index % len(self) + 1]
        return self.data[start:end].tobytes().decode()
