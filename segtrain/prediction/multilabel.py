"""What a multilabel network says of one picture: where each class is; they may overlap.

H x W pixels of the upright picture, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from segtrain.label_set import LabelSet
from segtrain.picture import Picture
from segtrain.prediction.files import class_id, described, start_files, write_files
from segtrain.prediction.pixels import PixelPrediction
from segtrain.report.drawing import fit, paint_masks


@dataclass(frozen=True, eq=False, repr=False)
class MultilabelPrediction(PixelPrediction):
    """Where each class is; they are striped over the image where they overlap.

    Attributes:
        picture: what was looked at, upright.
        masks: (K, H, W) bool; a pixel may be of several classes, or of none.
        label_set: names and colours of the K classes.
        protocol: how the network looked at it, with the `thresholds` of the masks.
        look: gives the probabilities (K, H, W) of the picture.
    """

    picture: Picture
    masks: np.ndarray
    label_set: LabelSet
    protocol: dict
    look: Callable[[Picture], np.ndarray]

    @cached_property
    def shares(self) -> dict[str, float]:
        """The share of the pixels, 0..1, of each class that is there, largest first.

        Their sum may exceed 1.
        """
        shares = [np.count_nonzero(mask) / mask.size for mask in self.masks]
        order = np.argsort([-share for share in shares], kind="stable")
        return {self.label_set.names[i]: shares[i] for i in order if shares[i]}

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(K, H, W) float32, each class's own. The network looks once more when first asked.

        Raises:
            UserError: the picture is so large that they were never in memory at once.
        """
        return self.look(self.picture)

    def mask(self, name: str) -> np.ndarray:
        """(H, W) bool, where the class is.

        Raises:
            UserError: the network knows no such class.
        """
        return self.masks[class_id(self.label_set, name)]

    def summary(self) -> dict:
        """What the JSON file says: size, classes with shares, colours and thresholds, protocol."""
        return {"task": "multilabel", **described(self.picture), "classes": self._classes(),
                "protocol": self.protocol}  # fmt: skip

    def save(
        self, folder: str | Path, stem: str, classes: Sequence[str] = (), about: dict | None = None
    ) -> list[Path]:
        """Writes `<stem>_<class>_mask.png`, `_overlay.jpg` and `.json`; existing ones are replaced.

        Args:
            folder: is made if need be.
            stem: of the files' names.
            classes: whose masks, 0 and 255, and cut-outs are written; none for masks of all.
            about: stands first in the JSON file.

        Returns:
            The files.
        """
        base = start_files(folder, stem)
        chosen = {name: self.mask(name) for name in classes or self.label_set.names}
        summary = (about or {}) | self.summary()
        return write_files(
            base, self.image, self.overlay(), summary, chosen, with_cutouts=bool(classes)
        )

    def _painted(self, side: int) -> np.ndarray:
        picture = self.image if side == max(self.image.shape[:2]) else fit(self.image, side)
        return paint_masks(picture, self.masks, self.label_set)
