"""What a semantic network says of one picture: the class of every pixel.

H x W pixels of the upright picture, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from segtrain.label_set import VOID, LabelSet
from segtrain.picture import Picture
from segtrain.prediction.files import class_id, described, named, start_files, write_files
from segtrain.prediction.pixels import PixelPrediction
from segtrain.report.legend import BACKGROUND, paint_labels
from segtrain.writing import write_picture

ROWS = 2**22  # pixels that are counted at once


@dataclass(frozen=True, eq=False, repr=False)
class SemanticPrediction(PixelPrediction):
    """The class of every pixel.

    Attributes:
        picture: what was looked at, upright.
        labels: (H, W) uint8 train ids.
        label_set: names and colours of the K classes.
        protocol: how the network looked at it.
        look: gives the probabilities (K, H, W) of the picture.
    """

    picture: Picture
    labels: np.ndarray
    label_set: LabelSet
    protocol: dict
    look: Callable[[Picture], np.ndarray]

    @cached_property
    def shares(self) -> dict[str, float]:
        """The share of the pixels, 0..1, of each class that is there, largest first."""
        counts = np.zeros(self.label_set.num_classes, np.int64)
        flat = self.labels.reshape(-1)
        for start in range(0, len(flat), ROWS):
            counts += np.bincount(flat[start : start + ROWS], minlength=len(counts))
        order = [index for index in np.argsort(-counts, kind="stable") if counts[index]]
        return {self.label_set.names[i]: int(counts[i]) / self.labels.size for i in order}

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(K, H, W) float32, which sum to 1. The network looks once more when first asked.

        Raises:
            UserError: the picture is so large that they were never in memory at once.
        """
        return self.look(self.picture)

    def mask(self, name: str) -> np.ndarray:
        """(H, W) bool, where the class is.

        Raises:
            UserError: the network knows no such class.
        """
        return self.labels == class_id(self.label_set, name)

    def palette_image(self) -> Image.Image:
        """(W, H) train ids as a palette picture (mode P) in the data set's colours."""
        colours = np.zeros((256, 3), np.uint8)
        ids = np.append(np.arange(self.label_set.num_classes), VOID)
        colours[ids] = self.label_set.colorize(ids)
        picture = Image.fromarray(self.labels)
        picture.putpalette(colours.tobytes())
        return picture

    def summary(self) -> dict:
        """What the JSON file says: size, classes with their shares and colours, protocol."""
        return {"task": "semantic", **described(self.picture), "classes": self._classes(),
                "protocol": self.protocol}  # fmt: skip

    def save(
        self, folder: str | Path, stem: str, classes: Sequence[str] = (), about: dict | None = None
    ) -> list[Path]:
        """Writes `<stem>.png`, `<stem>_overlay.jpg` and `<stem>.json`; existing ones are replaced.

        Args:
            folder: is made if need be.
            stem: of the files' names.
            classes: `<stem>_<class>_mask.png`, 0 and 255, and `<stem>_<class>_cutout.png` for each
                of them; no cut-out of a class that is not there.
            about: stands first in the JSON file.

        Returns:
            The files.
        """
        base = start_files(folder, stem)
        labels = named(base, ".png")
        write_picture(self.palette_image(), labels)
        masks = {name: self.mask(name) for name in classes}
        summary = (about or {}) | self.summary()
        return [labels, *write_files(base, self.image, self.overlay(), summary, masks)]

    def _painted(self, side: int) -> np.ndarray:
        return paint_labels(self.image, self.labels, self.label_set, side)

    def _paint(self, name: str) -> tuple[int, int, int] | None:
        return None if name == BACKGROUND else self._colour(name)
