"""`shapes_panoptic`: scenes drawn on the fly, whose every pixel has a class and things a number.

Sky lies over grass, and in most pictures water before it: stuff. In front are the vividly coloured
figures of `shapes`: things, told apart. Every other one has a twin of its class beside it, which
touches it or hides a part; what is labelled is the part that is seen. Some pictures show a crowd,
many small figures of a class that count as one region, or a blob of any colour, which is void.

An image depends on (seed, split, index) and its size alone, not on drawing order or process.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from segtrain.dataset.drawn import DrawnScenes
from segtrain.dataset.shapes import Figure, Side, draw_figure, paint
from segtrain.dataset.textures import position, texture
from segtrain.label_set import VOID, LabelSet
from segtrain.segments import CROWD, pack
from segtrain.values import Natural

THINGS = ("circle", "square", "triangle", "star", "ring")  # in the order of the labels of `shapes`
STUFF = {"sky": (140, 170, 205), "grass": (110, 130, 80), "water": (70, 95, 120)}  # mean colours

_THING_SIZE, _CROWD_SIZE = 0.75, 0.35  # in figures of `shapes`
_TWIN_DISTANCE = (0.12, 0.32)  # between the centres, in shorter sides: most touch or overlap
_CROWD_MEMBERS = (6, 11)
_CROWD_SHARE, _VOID_SHARE, _WATER_SHARE = 0.15, 0.2, 0.6  # of the pictures
_LEAST_PIXELS = 24  # of a thing that are seen
_LEAST_VISIBLE = 0.4  # share of a thing that is seen, of the part inside the image
_PLACEMENT_ATTEMPTS = 20


def shapes_panoptic(
    split: str,
    labels: LabelSet,
    num_images: dict[str, Natural],
    size: tuple[Side, Side],
    seed: Natural,
) -> DrawnScenes:
    """One split of the set as the data module asks for it.

    Raises:
        UserError: there is no such split.
    """
    return DrawnScenes("shapes_panoptic", draw_scene, split, num_images, size, seed, labels)


def draw_scene(rng: Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """One picture (H, W, 3) uint8 RGB and its labels (H, W, 3) uint8, see `segtrain.segments`."""
    background, classes = _draw_stuff(rng, (height, width))
    figures = _place_figures(rng, (height, width))
    image = paint(rng, background, [figure.painted for figure in figures])
    numbers = np.zeros((height, width), np.int64)
    for label, number, (_, _, visible) in figures:
        classes[visible], numbers[visible] = label, number
    return image, pack(classes, numbers)


class _Placed(NamedTuple):
    label: int  # train id, or VOID
    number: int  # of the instance, from 1 on; or CROWD; 0 of void
    painted: Figure


def _draw_stuff(rng: Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Picture (H, W, 3) uint8 without figures, and its train ids (H, W) uint8."""
    side, tilt = min(shape), rng.uniform(-0.2, 0.2)
    down = position(math.pi / 2 + tilt, shape) / shape[0]
    borders = [-math.inf, rng.uniform(0.2, 0.5)]
    if rng.random() < _WATER_SHARE:
        borders.append(rng.uniform(0.6, 0.85))
    image, classes = np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8)
    for train, (border, colour) in enumerate(zip(borders, STUFF.values(), strict=False)):
        surface = texture(rng, shape, side, np.array(colour) + rng.uniform(-20, 20, 3))
        below = down >= border
        image[below], classes[below] = surface[below], len(THINGS) + train
    return image, classes


def _place_figures(rng: Generator, shape: tuple[int, int]) -> list[_Placed]:
    """Topmost first: things, then what is void, then a crowd; each where it is seen."""
    free, placed = np.ones(shape, bool), []

    def put(label: int, number: int, centre: np.ndarray, size: float) -> bool:
        drawn = 0 if label == VOID else label + 1
        coverage = draw_figure(rng, drawn, shape, centre, size)
        own = coverage >= 128
        visible = own & free
        seen = np.count_nonzero(visible)
        if seen < max(_LEAST_PIXELS, _LEAST_VISIBLE * np.count_nonzero(own)):
            return False
        placed.append(_Placed(label, number, Figure(drawn, coverage, visible)))
        np.logical_and(free, ~own, out=free)
        return True

    def anywhere() -> np.ndarray:
        return rng.uniform(0.1, 0.9, 2) * shape[::-1]

    number = 1
    for _ in range(rng.integers(2, 5)):
        label, has_twin = int(rng.integers(len(THINGS))), rng.random() < 0.5
        centres = (anywhere() for _ in range(_PLACEMENT_ATTEMPTS))
        centre = next((c for c in centres if put(label, number, c, _THING_SIZE)), None)
        if centre is None:
            continue
        number += 1
        beside = (_beside(rng, centre, shape) for _ in range(_PLACEMENT_ATTEMPTS))
        if has_twin and any(put(label, number, c, _THING_SIZE) for c in beside):
            number += 1
    if rng.random() < _VOID_SHARE:
        put(VOID, 0, anywhere(), _THING_SIZE)
    if rng.random() < _CROWD_SHARE:
        label, centre = int(rng.integers(len(THINGS))), anywhere()
        for _ in range(rng.integers(*_CROWD_MEMBERS)):
            put(label, CROWD, _beside(rng, centre, shape), _CROWD_SIZE)
    return placed


def _beside(rng: Generator, centre: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A place (x, y) at which a figure touches that of `centre`, or overlaps with it."""
    angle, distance = rng.uniform(0, 2 * math.pi), min(shape) * rng.uniform(*_TWIN_DISTANCE)
    return centre + distance * np.array([math.cos(angle), math.sin(angle)])
