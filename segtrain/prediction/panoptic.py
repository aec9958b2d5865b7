"""What a panoptic network says of one picture: which segment every pixel is of.

H x W pixels of the upright picture, n segments.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import find_objects

from segtrain import notebook
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.picture import Picture
from segtrain.prediction.files import class_id, cut_out, described, named, start_files, write_files
from segtrain.prediction.pixels import PixelPrediction
from segtrain.report.drawing import draw_segments, instance_shades
from segtrain.report.legend import Entry
from segtrain.segments import id_colours
from segtrain.writing import write_picture

LISTED = 20  # segments beside the overlay in a notebook


@dataclass(frozen=True)
class Segment:
    """One segment of a picture: a single thing, or all of a class of stuff.

    Attributes:
        number: its pixels' value in the map, from 1 on.
        name: of its class.
        label: the class's train id.
        score: 0..1.
        pixels: how many it has.
        box: x y width height in whole pixels.
        is_thing: whether its class has instances that are told apart.
        map: of the prediction.
    """

    number: int
    name: str
    label: int
    score: float
    pixels: int
    box: tuple[int, int, int, int]
    is_thing: bool
    map: np.ndarray = field(repr=False, compare=False)

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool, made anew every time."""
        return self.map == self.number


@dataclass(frozen=True, eq=False, repr=False)
class PanopticPrediction(PixelPrediction):
    """The segment of every pixel; stuff has its class's colour, things have shades of theirs.

    Attributes:
        picture: what was looked at, upright.
        map: (H, W) int32, 0 of no segment, i of the i-th.
        labels: (n,) int64 train ids of the segments.
        scores: (n,) float32, 0..1.
        label_set: names, colours and things of the classes.
        protocol: how the network looked at it.
    """

    picture: Picture
    map: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    label_set: LabelSet
    protocol: dict

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The segments in the order of their numbers; those without a pixel are left out."""
        found = []
        for number, place in enumerate(find_objects(self.map, len(self.labels)), 1):
            if place is None:
                continue
            rows, columns = place
            box = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
            pixels = int(np.count_nonzero(self.map[place] == number))
            label = int(self.labels[number - 1])
            found.append(Segment(number, self.label_set.names[label], label,
                                 float(self.scores[number - 1]), pixels, box,
                                 label in self._things, self.map))  # fmt: skip
        return tuple(found)

    @cached_property
    def shares(self) -> dict[str, float]:
        """The share of the pixels, 0..1, of each class that is there, largest first."""
        pixels: Counter[str] = Counter()
        for segment in self.segments:
            pixels[segment.name] += segment.pixels
        return {name: count / self.map.size for name, count in pixels.most_common()}

    def mask(self, which: int | str) -> np.ndarray:
        """(H, W) bool: one segment by its number, or all of a class by its name.

        Raises:
            UserError: there is no such segment, or the network knows no such class.
        """
        if isinstance(which, str):
            wanted = class_id(self.label_set, which)
            return np.isin(self.map, [s.number for s in self.segments if s.label == wanted])
        if not 1 <= which <= len(self.labels):
            raise UserError(f"no segment {which}; they have the numbers 1 to {len(self.labels)}")
        return self.map == which

    def cutout(self, which: int | str) -> Image.Image:
        """A segment, or all of a class, on a transparent ground, (W, H) RGBA."""
        return cut_out(self.image, self.mask(which))

    def entries(self) -> list[Entry]:
        """The legend: the classes that are there with their shares, of things with their number."""
        counts = Counter(segment.name for segment in self.segments if segment.is_thing)
        return [
            Entry(f"{counts[entry_name]} {text}" if entry_name in counts else text, colour)
            for entry_name, (text, colour) in zip(self.shares, super().entries(), strict=True)
        ]

    def id_image(self) -> Image.Image:
        """(W, H) RGB: numbers of segments as COCO's format has them, R + 256 G + 256² B."""
        return Image.fromarray(id_colours(self.map))

    def summary(self) -> dict:
        """What the JSON file says: size, segments as in COCO's panoptic format, protocol.

        `category_id` is what the data set's files call the class.
        """
        raw = self.label_set.decode(np.arange(self.label_set.num_classes)).tolist()
        segments = [
            {"id": one.number, "category_id": raw[one.label], "name": one.name,
             "score": round(one.score, 5), "area": one.pixels, "bbox": list(one.box),
             "isthing": int(one.is_thing), "colour": list(self._colour(one.name))}
            for one in self.segments
        ]  # fmt: skip
        return {"task": "panoptic", **described(self.picture), "segments_info": segments,
                "protocol": self.protocol}  # fmt: skip

    def save(
        self, folder: str | Path, stem: str, classes: Sequence[str] = (), about: dict | None = None
    ) -> list[Path]:
        """Writes `<stem>_panoptic.png`, `_overlay.jpg` and `.json`; existing ones are replaced.

        Args:
            folder: is made if need be.
            stem: of the files' names.
            classes: as of `SemanticPrediction.save`; all segments of a class in one mask.
            about: stands first in the JSON file.

        Returns:
            The files.
        """
        base = start_files(folder, stem)
        ids = named(base, "_panoptic.png")
        write_picture(self.id_image(), ids)
        masks = {name: self.mask(name) for name in classes}
        summary = (about or {}) | self.summary()
        return [ids, *write_files(base, self.image, self.overlay(), summary, masks)]

    @property
    def _things(self) -> frozenset[int]:
        return self.label_set.things or frozenset()

    def _painted(self, side: int) -> np.ndarray:
        captions = [
            f"{self.label_set.names[label]} {score:.2f}" if label in self._things else ""
            for label, score in zip(self.labels.tolist(), self.scores, strict=True)
        ]
        return draw_segments(self.image, self.map, self.labels, captions, self.label_set, side)

    def _table(self) -> str:
        """HTML: the segments beside the overlay, the largest first."""
        shades = instance_shades(self.labels, self.label_set)
        largest = sorted(self.segments, key=lambda segment: -segment.pixels)
        rows = [
            [notebook.swatch(one.name, tuple(shades[one.number - 1])),
             notebook.share_cell(one.score), notebook.share_cell(one.pixels / self.map.size)]
            for one in largest[:LISTED]
        ]  # fmt: skip
        return notebook.table(("segment", "score", "share of the pixels"), rows)
