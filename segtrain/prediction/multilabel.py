"""What a multilabel network says of one picture: where each class is; they may overlap.

H x W pixels of the upright picture, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from segtrain import notebook
from segtrain.label_set import LabelSet
from segtrain.picture import Picture
from segtrain.prediction.files import (
    OVERLAY_SIDES,
    class_id,
    cut_out,
    described,
    overlay_side,
    shown_side,
    size_of,
    start_files,
    write_files,
)
from segtrain.report.drawing import fit, paint_masks
from segtrain.report.legend import Entry, with_legend

FRAME_LINES = 2  # of the legend below a frame of a video


@dataclass(frozen=True, eq=False)
class MultilabelPrediction:
    """Where each class is.

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

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright."""
        return self.picture.pixels

    @cached_property
    def shares(self) -> dict[str, float]:
        """The share of the pixels, 0..1, of each class that is there, largest first.

        Their sum may exceed 1.
        """
        shares = [np.count_nonzero(mask) / mask.size for mask in self.masks]
        order = np.argsort([-share for share in shares], kind="stable")
        return {self.label_set.names[i]: shares[i] for i in order if shares[i]}

    @property
    def names(self) -> tuple[str, ...]:
        """The classes that are there, largest first."""
        return tuple(self.shares)

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

    def cutout(self, name: str) -> Image.Image:
        """The class's pixels on a transparent ground, (W, H) RGBA."""
        return cut_out(self.image, self.mask(name))

    def overlay(self, legend: bool = True) -> Image.Image:
        """The classes over the image, striped where they overlap, brought into OVERLAY_SIDES."""
        picture = self._painted(overlay_side(self.image))
        return Image.fromarray(with_legend(picture, self.entries(), None) if legend else picture)

    def frame(self) -> np.ndarray:
        """The overlay as a frame of a video, which has one size whatever it shows: (h, w, 3)."""
        picture = self._painted(min(max(self.image.shape[:2]), OVERLAY_SIDES[1]))
        return with_legend(picture, self.entries(), FRAME_LINES)

    def entries(self) -> list[Entry]:
        """The legend: the classes that are there, with their shares."""
        return [
            Entry(f"{name} {notebook.percent(share)}", self._colour(name))
            for name, share in self.shares.items()
        ]

    def summary(self) -> dict:
        """What the JSON file says: size, classes with shares, colours and thresholds, protocol."""
        classes = [
            {"name": name, "id": class_id(self.label_set, name), "share": round(share, 6),
             "colour": list(self._colour(name))}
            for name, share in self.shares.items()
        ]  # fmt: skip
        return {"task": "multilabel", **described(self.picture), "classes": classes,
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

    def _colour(self, name: str) -> tuple[int, int, int]:
        return self.label_set.palette[class_id(self.label_set, name)]

    def __repr__(self) -> str:
        found = ", ".join(entry.text for entry in self.entries())
        return notebook.one_line(f"<MultilabelPrediction {size_of(self.image)}: {found}>")

    def _repr_html_(self) -> str:
        """The overlay beside the classes that are there."""
        painted = Image.fromarray(self._painted(shown_side(self.image)))
        rows = [[notebook.swatch(name, self._colour(name)), notebook.share_cell(share)]
                for name, share in self.shares.items()]  # fmt: skip
        return notebook.card(
            size_of(self.image), f"{len(rows)} of {self.label_set.num_classes} classes",
            notebook.picture(painted, "classes over the picture"),
            notebook.table(("class", "share of the pixels"), rows),
        )  # fmt: skip
