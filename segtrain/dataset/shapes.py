"""`shapes`: a synthetic semantic and instance segmentation data set drawn on the fly.

It needs no download, and serves tests, demonstrations and quick comparisons of architectures.
Every image shows 3 to 7 vividly coloured objects on a duller background. A class has a usual hue,
but neighbouring classes overlap, so that only the outline tells the class for sure; blobs,
scribbles and letter-like strokes in any colour belong to the background.

Classes: 0 background, 1 circle (or ellipse), 2 square (or rectangle), 3 triangle, 4 star,
5 ring (whose hole shows what is behind), 6 cross, 7 stick (thin and rare, about 1 % of the
pixels). 255 is void: one pixel on either side of every visible object boundary, as in PASCAL VOC.

An image depends on (seed, split, index) and its size alone, not on drawing order or process.
"""

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

from segtrain.contracts import Listing
from segtrain.dataset.textures import position, texture
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.values import Natural, Rule

CLASSES: tuple[str, ...] = (
    "background", "circle", "square", "triangle", "star", "ring", "cross", "stick"
)  # fmt: skip
VOID = 255

SPLITS = ("train", "val", "test")  # the position is the split's number in the random seed
_MIN_SIZE = 32
Side = Annotated[int, Rule(f"of at least {_MIN_SIZE}", lambda side: side >= _MIN_SIZE)]
_MIN_VISIBLE_PIXELS = 20
_MIN_VISIBLE_FRACTION = 0.6  # an object more hidden than this cannot be told by its outline
_PLACEMENT_ATTEMPTS = 20
_MIN_COLOUR_DISTANCE = 80.0  # Euclidean in RGB, between an object and what lies behind it
_HUE_SPREAD = 12.0  # degrees, standard deviation around a class's usual hue; classes are 51 apart
_CLASS_PROBABILITIES = (0.14, 0.14, 0.16, 0.16, 0.15, 0.15, 0.10)  # of the labels 1 to 7
_SHIFT = 4  # fractional bits of the vertices handed to OpenCV


@dataclass(frozen=True)
class Scene:
    """One drawn image with its exact annotation."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    mask: np.ndarray  # (H, W) uint8, 0..7 and 255 void border
    instances: np.ndarray  # (n, H, W) bool, visible parts
    labels: np.ndarray  # (n,) int64, 1..7


class Shapes:
    """One split of the set, held in memory once drawn; random access."""

    labelled = True

    def __init__(self, split: str, *, num_images: int, size: tuple[int, int], seed: int) -> None:
        """Describe the split; nothing is drawn yet.

        `split` is "train", "val" or "test" (disjoint random streams), `size` is (height, width)
        in pixels, `seed` is an integer >= 0. Raises ValueError for an unknown split or a side
        below 32 pixels.
        """
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}, expected one of {', '.join(SPLITS)}")
        if min(size) < _MIN_SIZE:
            raise ValueError(f"size {size} is too small, expected (height, width) >= {_MIN_SIZE}")
        self._split, self._num_images = split, num_images
        self._size, self._seed = size, seed
        self._drawn: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return self._num_images

    def name(self, index: int) -> str:
        """The image's name, such as "shapes/train/000012"."""
        return f"shapes/{self._split}/{index:06d}"

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) uint8 RGB and mask (H, W) uint8 of class ids and 255 for void.

        Drawn on first use, then kept; the arrays are copies that the caller may change.
        Raises IndexError outside the split.
        """
        if index not in self._drawn:
            scene = self.scene(index)
            self._drawn[index] = scene.image, scene.mask
        image, mask = self._drawn[index]
        return image.copy(), mask.copy()

    def image_file(self, index: int) -> None:
        """They are drawn."""

    def class_counts(self, index: int) -> np.ndarray:
        """(K + 1,) int64 pixels per class; void last."""
        counts = np.bincount(self.read(index)[1].ravel(), minlength=256)
        return np.append(counts[: len(CLASSES)], counts[VOID])

    def listing(self) -> Listing:
        return Listing(f"shapes {self._split} {self._num_images} {self._size} {self._seed}")

    def scene(self, index: int) -> Scene:
        """The image with its instances, drawn anew; IndexError outside the split."""
        if not 0 <= index < self._num_images:
            raise IndexError(f"index {index}, expected 0 to {self._num_images - 1}")
        rng = np.random.default_rng([self._seed, SPLITS.index(self._split), index])
        return render_scene(rng, *self._size)


def shapes(
    split: str,
    labels: LabelSet,
    num_images: dict[str, Natural],
    size: tuple[Side, Side],
    seed: Natural,
) -> Shapes:
    """One split of the set as the data module asks for it.

    `num_images` tells each split's length. Raises UserError for another split.
    """
    if split not in num_images:
        raise UserError(f"shapes has no split '{split}'; expected one of {', '.join(num_images)}")
    return Shapes(split, num_images=num_images[split], size=tuple(size), seed=seed)


def render_scene(rng: Generator, height: int, width: int) -> Scene:
    """Draw one scene of `height` x `width` pixels, made for at least 32 each.

    Holds 3 to 7 objects, less those that find no place to be seen: each shows at least 20 pixels
    and 60 % of its area inside the image. Object sizes follow the shorter side.
    """
    placed = _place_figures(rng, (height, width))
    colour = rng.uniform(60, 195) + rng.uniform(-25, 25, 3)
    background = texture(rng, (height, width), min(height, width), colour)
    image = paint(rng, background, placed)
    objects = [figure for figure in placed if figure.label]
    labels = np.array([figure.label for figure in objects], np.int64)
    instances = np.array([f.visible for f in objects], bool).reshape(-1, height, width)

    mask = np.zeros((height, width), np.uint8)
    owner = np.zeros((height, width), np.uint8)  # 0 or 1 + the instance's number
    for order, (visible, label) in enumerate(zip(instances, labels, strict=True)):
        mask[visible] = label
        owner[visible] = order + 1
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    mask[cv2.morphologyEx(owner, cv2.MORPH_GRADIENT, cross) > 0] = VOID
    return Scene(image, mask, instances, labels)


class Figure(NamedTuple):
    """One figure as it is painted."""

    label: int  # 0 for a distractor
    coverage: np.ndarray  # (H, W) uint8, 0..255, antialiased
    visible: np.ndarray  # (H, W) bool


def _place_figures(rng: Generator, shape: tuple[int, int]) -> list[Figure]:
    """Objects and distractors, topmost first.

    Going from the top down, what lies above is already known, so each figure is accepted or
    drawn again once and for all.
    """
    labels = 1 + rng.choice(len(CLASSES) - 1, rng.integers(3, 8), p=_CLASS_PROBABILITIES)
    distractors = np.zeros(rng.integers(0, 3), labels.dtype)
    free = np.ones(shape, bool)
    placed = []
    for label in rng.permutation(np.concatenate([labels, distractors])):
        for _ in range(_PLACEMENT_ATTEMPTS):
            coverage = draw_figure(rng, int(label), shape)
            own = coverage >= 128
            visible = own & free
            needed = max(_MIN_VISIBLE_PIXELS, _MIN_VISIBLE_FRACTION * np.count_nonzero(own))
            if np.count_nonzero(visible) >= needed:
                placed.append(Figure(int(label), coverage, visible))
                free &= ~own
                break
    return placed


def draw_figure(
    rng: Generator,
    label: int,
    shape: tuple[int, int],
    centre: np.ndarray | None = None,
    size: float = 1.0,
) -> np.ndarray:
    """Antialiased coverage (H, W) uint8, 0..255, of one figure.

    Args:
        rng: what its form, size and angle are drawn from.
        label: 1 to 7, or 0 for a distractor.
        shape: height and width of the image.
        centre: x and y of the figure in pixels; None: a random place.
        size: in figures of the usual one.
    """
    side = min(shape) * size
    kind = CLASSES[label] if label else _DISTRACTORS[rng.integers(len(_DISTRACTORS))]
    radius = max(5.0, side * rng.uniform(0.15, 0.36))
    scale = radius * np.array([1.0, rng.uniform(0.8, 1.0)])
    stroke = max(2, round(side * rng.uniform(0.015, 0.035)))  # line width in pixels
    if kind == "stick":
        half_width = max(1.5, side * rng.uniform(0.02, 0.03))
        scale = np.array([side * rng.uniform(0.2, 0.42), half_width])
    elif kind == "letter":
        scale *= 0.35  # larger, its straight strokes would be sticks
    angle = rng.uniform(0, 2 * math.pi)
    cosine, sine = math.cos(angle), math.sin(angle)
    transform = scale[:, None] * np.array([[cosine, sine], [-sine, cosine]])
    if centre is None:
        centre = rng.uniform(0.1, 0.9, 2) * shape[::-1]
    contours = [contour @ transform + centre for contour in _OUTLINES[kind](rng)]

    coverage = np.zeros(shape, np.uint8)
    points = [np.rint(contour * 2**_SHIFT).astype(np.int32) for contour in contours]
    if kind in ("scribble", "letter"):
        cv2.polylines(coverage, points, False, 255, stroke, cv2.LINE_AA, _SHIFT)
    else:  # even-odd rule: the second contour of a ring is its hole
        cv2.fillPoly(coverage, points, 255, cv2.LINE_AA, _SHIFT)
    return coverage


def _polygon(num_vertices: int, radii: float | np.ndarray = 1.0) -> np.ndarray:
    """Vertices (n, 2) at equal angles and the given distances from the origin."""
    angles = np.arange(num_vertices) * (2 * math.pi / num_vertices)
    return np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=1)


def _cross(rng: Generator) -> list[np.ndarray]:
    arm = rng.uniform(0.25, 0.36)  # half its width
    x = np.array([1, 1, arm, arm, -arm, -arm, -1, -1, -arm, -arm, arm, arm])
    return [np.stack([x, np.roll(x, 3)], axis=1)]


def _blob(rng: Generator) -> list[np.ndarray]:
    """A smooth, lobed closed outline that resembles none of the classes."""
    angles = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    phases = rng.uniform(0, 2 * math.pi, 3)
    waves = np.cos(np.multiply.outer(angles, [2, 3, 4]) + phases) @ rng.uniform(0.15, 0.3, 3)
    return [_polygon(64, 0.75 * (1 + waves))]


def _scribble(rng: Generator) -> list[np.ndarray]:
    """One open line; with twice the frequency in y than in x it is curved for all phases."""
    time = np.linspace(0, rng.uniform(3, 6), 32)[:, None]
    return [np.sin(time * (1, 2) + rng.uniform(0, 2 * math.pi, 2))]


_ROUND = _polygon(64)
_SQUARE = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
# Contours (n, 2) that fill [-1, 1] x [-1, 1] roughly, before scaling, rotation and translation.
_OUTLINES: dict[str, Callable[[Generator], list[np.ndarray]]] = {
    "circle": lambda rng: [_ROUND],
    "square": lambda rng: [_SQUARE * 0.85],
    "triangle": lambda rng: [_polygon(3, 1.1)],
    "star": lambda rng: [_polygon(10, np.tile([1.1, rng.uniform(0.42, 0.52)], 5))],
    "ring": lambda rng: [_ROUND, _ROUND * rng.uniform(0.5, 0.65)],
    "cross": _cross,
    "stick": lambda rng: [_SQUARE],
    "blob": _blob,
    "scribble": _scribble,
    "letter": lambda rng: list(rng.integers(-1, 2, (3, 3, 2)).astype(float)),  # three strokes
}
_DISTRACTORS = ("blob", "scribble", "letter")


def paint(rng: Generator, image: np.ndarray, figures: list[Figure]) -> np.ndarray:
    """Image (H, W, 3) uint8 of a background (H, W, 3) uint8, which is painted over.

    Upon it come the figures, whose first is the topmost, light, blur and noise.
    """
    shape, side = image.shape[:2], min(image.shape[:2])
    for label, coverage, _ in reversed(figures):
        left, top, width, height = cv2.boundingRect(coverage)
        box = np.s_[top : top + height, left : left + width]
        behind = cv2.mean(image[box], coverage[box])[:3]
        colour = object_colour(rng, label)
        while math.dist(colour, behind) < _MIN_COLOUR_DISTANCE:
            colour = object_colour(rng, label)
        alpha = coverage[box] * np.float32(1 / 255)
        surface = texture(rng, (height, width), side, colour)
        image[box] = cv2.blendLinear(surface, image[box], alpha, 1 - alpha)
    slope, depth = position(rng.uniform(0, 2 * math.pi), shape), rng.uniform(0, 0.3)
    light = cv2.normalize(slope, None, 1 - depth, 1 + depth, cv2.NORM_MINMAX)
    image = cv2.multiply(image, cv2.merge([light] * 3), dtype=cv2.CV_8U)
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.9))
    noise = rng.uniform(2, 7) * rng.standard_normal(shape, np.float32)
    return cv2.add(image, cv2.merge([noise] * 3), dtype=cv2.CV_8U)


def object_colour(rng: Generator, label: int) -> np.ndarray:
    """RGB (3,) in 0..255, vivid; a distractor (label 0) has any hue."""
    hue = rng.uniform(0, 360) if label == 0 else rng.normal(label * 360 / 7, _HUE_SPREAD)
    saturation, value = rng.uniform(0.6, 1.0), rng.uniform(0.55, 1.0)
    return 255 * np.array(colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value))
