"""What a network found in one picture: objects, or proposals for objects.

H x W pixels of the upright picture, n instances.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from segtrain import notebook
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.masks import decode
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
from segtrain.report.drawing import draw_instances, instance_shades
from segtrain.report.legend import Entry

SHOWN_PROPOSALS = 10
LISTED = 20  # instances beside the overlay in a notebook


@dataclass(frozen=True, eq=False)
class InstancePrediction:
    """The objects, or proposals for objects, of a picture, best first.

    Attributes:
        picture: what was looked at, upright.
        boxes: (n, 4) float32 x1 y1 x2 y2 in pixels.
        scores: (n,) float32, 0..1.
        labels: (n,) int64 train ids; all zero for proposals.
        codes: n masks as COCO's compressed run-length codes.
        label_set: names and colours of the classes.
        task: instance or proposal.
        protocol: how the network looked at it.
    """

    picture: Picture
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    codes: list[bytes]
    label_set: LabelSet
    task: str
    protocol: dict

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright."""
        return self.picture.pixels

    @property
    def names(self) -> tuple[str, ...]:
        """The class of each of the n instances; proposals are called `object`."""
        if self.task == "proposal":
            return ("object",) * len(self.labels)
        return tuple(self.label_set.names[label] for label in self.labels)

    @property
    def masks(self) -> np.ndarray:
        """(n, H, W) bool, decoded anew every time."""
        return decode(self.codes, self.image.shape[:2]).view(bool)

    def mask(self, which: int | str) -> np.ndarray:
        """(H, W) bool: one instance by its number, or all of a class by its name.

        Raises:
            UserError: there is no such instance, or the network knows no such class.
        """
        size = self.image.shape[:2]
        if isinstance(which, str):
            if self.task == "proposal":
                raise UserError(f"'{which}': proposals have no class; give their number")
            wanted = class_id(self.label_set, which)
            numbers = [n for n, label in enumerate(self.labels) if label == wanted]
        elif -len(self.codes) <= which < len(self.codes):
            numbers = [which]
        else:
            raise UserError(f"no instance {which}; {len(self.codes)} were found")
        union = np.zeros(size, bool)
        for number in numbers:
            union |= decode([self.codes[number]], size)[0].view(bool)
        return union

    def cutout(self, which: int | str) -> Image.Image:
        """An instance, or all of a class, on a transparent ground, (W, H) RGBA."""
        return cut_out(self.image, self.mask(which))

    def overlay(self) -> Image.Image:
        """Masks, boxes and captions over the image, its longer side brought into OVERLAY_SIDES.

        Of proposals the best SHOWN_PROPOSALS are shown, in different colours.
        """
        return Image.fromarray(self._drawn(overlay_side(self.image)))

    def frame(self) -> np.ndarray:
        """The overlay as a frame of a video, which has one size: (h, w, 3)."""
        return self._drawn(min(max(self.image.shape[:2]), OVERLAY_SIDES[1]))

    def entries(self) -> list[Entry]:
        """What was found, with the colours: each class with its number, the most frequent first."""
        if self.task == "proposal":
            return [Entry(f"{len(self.codes)} proposals", None)]
        return [
            Entry(f"{count} {name}", self.label_set.palette[class_id(self.label_set, name)])
            for name, count in Counter(self.names).most_common()
        ]

    def _drawn(self, side: int) -> np.ndarray:
        shown, classes = len(self.codes), self._colours()
        if self.task == "proposal":
            shown, classes = SHOWN_PROPOSALS, classes[:SHOWN_PROPOSALS]
        scores, names = self.scores[:shown], self.names[:shown]
        captions = [f"{name} {score:.2f}" for name, score in zip(names, scores, strict=True)]
        size = self.image.shape[:2]
        scale = min(1.0, side / max(size))
        small = (max(1, round(size[1] * scale)), max(1, round(size[0] * scale)))
        image = cv2.resize(self.image, small, interpolation=cv2.INTER_AREA)
        masks = [
            cv2.resize(decode([code], size)[0], small, interpolation=cv2.INTER_NEAREST)
            for code in self.codes[:shown]  # one by one: all of a large picture are too many
        ]
        return draw_instances(
            image, self.boxes[:shown] * scale, classes,
            np.array(masks, np.uint8).reshape(-1, *small[::-1]), captions,
            np.zeros(len(scores), bool), self.label_set, side,
        )  # fmt: skip

    def _colours(self) -> np.ndarray:
        """(n,) the class whose colour each instance has; proposals differ from one to the next."""
        if self.task == "proposal":
            return np.arange(len(self.codes)) % self.label_set.num_classes
        return self.labels

    def __repr__(self) -> str:
        found = ", ".join(entry.text for entry in self.entries()) or "nothing"
        return notebook.one_line(f"<InstancePrediction {size_of(self.image)}: {found}>")

    def _repr_html_(self) -> str:
        """The overlay beside the instances with their scores, best first."""
        drawn = Image.fromarray(self._drawn(shown_side(self.image)))
        shades = instance_shades(self._colours(), self.label_set)
        listed = LISTED if self.task == "instance" else SHOWN_PROPOSALS
        rows = [
            [notebook.swatch(name, tuple(shade)), notebook.share_cell(float(score))]
            for name, shade, score in zip(self.names, shades, self.scores, strict=True)
        ][:listed]
        found = ", ".join(entry.text for entry in self.entries()) or "nothing was found"
        if len(rows) < len(self.codes):
            found += f"; the best {len(rows)} are listed"
        return notebook.card(
            size_of(self.image), found,
            notebook.picture(drawn, "instances over the picture"),
            notebook.table(("instance", "score"), rows) if rows else "",
        )  # fmt: skip

    def summary(self) -> dict:
        """What the JSON file says: size, instances with boxes as x y width height, protocol."""
        instances = []
        for number, (x1, y1, x2, y2) in enumerate(self.boxes.tolist()):
            entry = {
                "score": round(float(self.scores[number]), 5),
                "box": [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                "mask": {"size": list(self.image.shape[:2]),
                         "counts": self.codes[number].decode()},
            }  # fmt: skip
            if self.task == "instance":
                label = int(self.labels[number])
                colour = list(self.label_set.palette[label])
                entry = {"name": self.names[number], "id": label, "colour": colour, **entry}
            instances.append(entry)
        return {"task": self.task, **described(self.picture), "instances": instances,
                "protocol": self.protocol}  # fmt: skip

    def save(
        self, folder: str | Path, stem: str, classes: Sequence[str] = (), about: dict | None = None
    ) -> list[Path]:
        """Writes `<stem>_overlay.jpg` and `<stem>.json`; existing ones are replaced.

        Args:
            folder: is made if need be.
            stem: of the files' names.
            classes: as of `SemanticPrediction.save`; all instances of a class in one mask.
            about: stands first in the JSON file.

        Returns:
            The files.
        """
        masks = {name: self.mask(name) for name in classes}
        base = start_files(folder, stem)
        summary = (about or {}) | self.summary()
        return write_files(base, self.image, self.overlay(), summary, masks)
