"""What predictions share that say of pixels what they are of: names, shares, cut-outs, legends."""

from abc import ABC, abstractmethod

import numpy as np
from PIL import Image

from segtrain import notebook
from segtrain.label_set import LabelSet
from segtrain.picture import Picture
from segtrain.prediction.files import (
    OVERLAY_SIDES,
    class_id,
    cut_out,
    overlay_side,
    shown_side,
    size_of,
)
from segtrain.report.legend import Entry, with_legend

FRAME_LINES = 2  # of the legend below a frame of a video
WHITE = (255, 255, 255)


class PixelPrediction(ABC):
    """Classes of the pixels of a picture; subclasses are dataclasses with these and more.

    Attributes:
        picture: what was looked at, upright.
        label_set: names and colours of the K classes.
        shares: the share of the pixels, 0..1, of each class that is there, largest first.
    """

    picture: Picture
    label_set: LabelSet
    shares: dict[str, float]

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright."""
        return self.picture.pixels

    @property
    def names(self) -> tuple[str, ...]:
        """The classes that are there, largest first."""
        return tuple(self.shares)

    @abstractmethod
    def mask(self, name: str) -> np.ndarray:
        """(H, W) bool, where the class is.

        Raises:
            UserError: the network knows no such class.
        """

    def cutout(self, name: str) -> Image.Image:
        """The class's pixels on a transparent ground, (W, H) RGBA."""
        return cut_out(self.image, self.mask(name))

    def overlay(self, legend: bool = True) -> Image.Image:
        """What is there over the image, its longer side brought into OVERLAY_SIDES."""
        picture = self._painted(overlay_side(self.image))
        return Image.fromarray(with_legend(picture, self.entries(), None) if legend else picture)

    def frame(self) -> np.ndarray:
        """The overlay as a frame of a video, which has one size whatever it shows: (h, w, 3)."""
        picture = self._painted(min(max(self.image.shape[:2]), OVERLAY_SIDES[1]))
        return with_legend(picture, self.entries(), FRAME_LINES)

    def entries(self) -> list[Entry]:
        """The legend: the classes that are there, with their shares."""
        return [
            Entry(f"{name} {notebook.percent(share)}", self._paint(name) or WHITE)
            for name, share in self.shares.items()
        ]

    @abstractmethod
    def _painted(self, side: int) -> np.ndarray:
        """(h, w, 3): what is there over the image, whose longer side is `side`."""

    def _colour(self, name: str) -> tuple[int, int, int]:
        return self.label_set.palette[class_id(self.label_set, name)]

    def _paint(self, name: str) -> tuple[int, int, int] | None:
        """What the class is painted with in the overlay; None where the image stays as it is."""
        return self._colour(name)

    def _classes(self) -> list[dict]:
        """The classes that are there as the JSON file has them."""
        return [
            {"name": name, "id": class_id(self.label_set, name), "share": round(share, 6),
             "colour": list(self._colour(name))}
            for name, share in self.shares.items()
        ]  # fmt: skip

    def __repr__(self) -> str:
        found = ", ".join(entry.text for entry in self.entries())
        return notebook.one_line(f"<{type(self).__name__} {size_of(self.image)}: {found}>")

    def _repr_html_(self) -> str:
        """The overlay beside the classes that are there."""
        painted = Image.fromarray(self._painted(shown_side(self.image)))
        subtitle = f"{len(self.shares)} of {self.label_set.num_classes} classes"
        return notebook.card(
            size_of(self.image), subtitle,
            notebook.picture(painted, "classes over the picture"), self._table(),
        )  # fmt: skip

    def _table(self) -> str:
        """HTML: what stands beside the overlay."""
        rows = [[notebook.swatch(name, self._paint(name)), notebook.share_cell(share)]
                for name, share in self.shares.items()]  # fmt: skip
        return notebook.table(("class", "share of the pixels"), rows)
