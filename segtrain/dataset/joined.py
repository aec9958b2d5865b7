"""Several splits as one."""

from bisect import bisect_right
from itertools import accumulate

import numpy as np

from segtrain.contracts import InstanceTarget, Listing, Source


class Joined:
    """The images of several sources, one after the other.

    Args:
        parts: at least one.
    """

    def __init__(self, parts: list[Source]) -> None:
        self.parts = parts
        self.ends = list(accumulate(len(part) for part in parts))
        self.labelled = all(part.labelled for part in parts)

    def __len__(self) -> int:
        return self.ends[-1]

    def name(self, index: int) -> str:
        part, position = self._locate(index)
        return part.name(position)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray | InstanceTarget]:
        """As the part reads it."""
        part, position = self._locate(index)
        return part.read(position)

    def image_file(self, index: int) -> str | None:
        part, position = self._locate(index)
        return part.image_file(position)

    def class_counts(self, index: int) -> np.ndarray:
        part, position = self._locate(index)
        return part.class_counts(position)

    def listing(self) -> Listing:
        parts = [part.listing() for part in self.parts]
        return Listing(
            key="\n".join(part.key for part in parts),
            files=[file for part in parts for file in part.files],
            patterns=[pattern for part in parts for pattern in part.patterns],
            faults=[fault for part in parts for fault in part.faults],
            notes=[note for part in parts for note in part.notes],
        )

    def _locate(self, index: int) -> tuple[Source, int]:
        number = bisect_right(self.ends, index)
        return self.parts[number], index - (self.ends[number - 1] if number else 0)
