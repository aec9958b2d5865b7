"""What a semantic network says of one picture: the class of every pixel.

H x W pixels of the upright picture, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from segtrain import notebook
from segtrain.label_set import VOID, LabelSet
from segtrain.picture import Picture
from segtrain.prediction.files import (
    OVERLAY_SIDES,
    class_id,
    cut_out,
    described,
    named,
    overlay_side,
    shown_side,
    size_of,
    start_files,
    write_files,
)
from segtrain.report.legend import BACKGROUND, Entry, paint_labels, with_legend
from segtrain.writing import write_picture

FRAME_LINES = 2  # of the legend below a frame of a video
WHITE = (255, 255, 255)
ROWS = 2**22  # pixels that are counted at once


@dataclass(frozen=True, eq=False)
class SemanticPrediction:
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

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright."""
        return self.picture.pixels

    @cached_property
    def shares(self) -> dict[str, float]:
        """The share of the pixels, 0..1, of each class that is there, largest first."""
        counts = np.zeros(self.label_set.num_classes, np.int64)
        flat = self.labels.reshape(-1)
        for start in range(0, len(flat), ROWS):
            counts += np.bincount(flat[start : start + ROWS], minlength=len(counts))
        order = [index for index in np.argsort(-counts, kind="stable") if counts[index]]
        return {self.label_set.names[i]: int(counts[i]) / self.labels.size for i in order}

    @property
    def names(self) -> tuple[str, ...]:
        """The classes that are there, largest first."""
        return tuple(self.shares)

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

    def cutout(self, name: str) -> Image.Image:
        """The class's pixels on a transparent ground, (W, H) RGBA."""
        return cut_out(self.image, self.mask(name))

    def overlay(self, legend: bool = True) -> Image.Image:
        """The classes over the image, its longer side brought into OVERLAY_SIDES."""
        picture = paint_labels(self.image, self.labels, self.label_set, overlay_side(self.image))
        return Image.fromarray(with_legend(picture, self.entries(), None) if legend else picture)

    def frame(self) -> np.ndarray:
        """The overlay as a frame of a video, which has one size whatever it shows: (h, w, 3)."""
        side = min(max(self.image.shape[:2]), OVERLAY_SIDES[1])
        picture = paint_labels(self.image, self.labels, self.label_set, side)
        return with_legend(picture, self.entries(), FRAME_LINES)

    def entries(self) -> list[Entry]:
        """The legend: the classes that are there, with their shares."""
        colours = dict(zip(self.label_set.names, self.label_set.palette, strict=True))
        colours[BACKGROUND] = WHITE  # as it is not painted
        return [
            Entry(f"{name} {notebook.percent(share)}", colours[name])
            for name, share in self.shares.items()
        ]

    def palette_image(self) -> Image.Image:
        """(W, H) train ids as a palette picture (mode P) in the data set's colours."""
        colours = np.zeros((256, 3), np.uint8)
        ids = np.append(np.arange(self.label_set.num_classes), VOID)
        colours[ids] = self.label_set.colorize(ids)
        picture = Image.fromarray(self.labels)
        picture.putpalette(colours.tobytes())
        return picture

    def __repr__(self) -> str:
        found = ", ".join(entry.text for entry in self.entries())
        return notebook.one_line(f"<SemanticPrediction {size_of(self.image)}: {found}>")

    def _repr_html_(self) -> str:
        """The overlay beside the classes that are there."""
        painted = paint_labels(self.image, self.labels, self.label_set, shown_side(self.image))
        colours = dict(zip(self.label_set.names, self.label_set.palette, strict=True))
        colours[BACKGROUND] = None  # as it is not painted
        rows = [[notebook.swatch(name, colours[name]), notebook.share_cell(share)]
                for name, share in self.shares.items()]  # fmt: skip
        subtitle = f"{len(rows)} of {self.label_set.num_classes} classes"
        return notebook.card(
            size_of(self.image), subtitle,
            notebook.picture(Image.fromarray(painted), "classes over the picture"),
            notebook.table(("class", "share of the pixels"), rows),
        )  # fmt: skip

    def summary(self) -> dict:
        """What the JSON file says: size, classes with their shares and colours, protocol."""
        classes = [
            {"name": name, "id": class_id(self.label_set, name), "share": round(share, 6),
             "colour": list(self.label_set.palette[class_id(self.label_set, name)])}
            for name, share in self.shares.items()
        ]  # fmt: skip
        return {"task": "semantic", **described(self.picture), "classes": classes,
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
