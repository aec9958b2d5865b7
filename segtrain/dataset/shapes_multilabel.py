"""`shapes_multilabel`: objects and the shadows that they cast, drawn on the fly, which overlap.

One light a picture lets every object cast its shadow the same way, darker than what it falls on:
the ground, or objects that lie deeper. There a pixel is both `object` and `shadow`. There are no
void pixels.
"""

import math
from functools import partial

import cv2
import numpy as np
from numpy.random import Generator

from segtrain.dataset.drawn import DrawnScenes
from segtrain.dataset.shapes import CLASSES as FIGURES
from segtrain.dataset.shapes import Side, draw_figure, object_colour
from segtrain.dataset.textures import texture
from segtrain.label_set import LabelSet
from segtrain.planes import pack
from segtrain.values import Natural

MOST_FIGURES = 5
LEAST_PIXELS = 40  # that an object has inside the image


def shapes_multilabel(
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
    draw = partial(draw_planes, labels.names)
    return DrawnScenes("shapes_multilabel", draw, split, num_images, size, seed, labels)


def draw_planes(
    names: tuple[str, ...], rng: Generator, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """One picture (H, W, 3) uint8 RGB and its labels (H, W, B) uint8, see `segtrain.planes`."""
    image, masks = draw_scene(rng, height, width)
    return image, pack(np.stack([masks[name] for name in names]))


def draw_scene(
    rng: Generator, height: int, width: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One picture (H, W, 3) uint8 RGB, and where its objects and shadows are, (H, W) bool each."""
    shape, side = (height, width), min(height, width)
    image = texture(rng, shape, side, rng.uniform(120, 220) + rng.uniform(-25, 25, 3))
    objects, shadows = np.zeros(shape, bool), np.zeros(shape, bool)
    angle, length = rng.uniform(0, 2 * math.pi), side * rng.uniform(0.08, 0.14)
    shift = np.float32([[1, 0, length * math.cos(angle)], [0, 1, length * math.sin(angle)]])
    darkness = rng.uniform(0.35, 0.55)
    for _ in range(rng.integers(2, MOST_FIGURES + 1)):
        label = int(rng.integers(1, len(FIGURES)))
        coverage = draw_figure(rng, label, shape)
        if np.count_nonzero(coverage >= 128) < LEAST_PIXELS:
            continue
        shadow = cv2.warpAffine(coverage, shift, (width, height))
        dark = shadow.astype(np.float32) / 255 * darkness
        image = (image * (1 - dark[..., None])).astype(np.uint8)
        surface = texture(rng, shape, side, object_colour(rng, label))
        share = coverage[..., None].astype(np.float32) / 255
        image = (surface * share + image * (1 - share)).astype(np.uint8)
        own = coverage >= 128
        shadows = (shadows | (shadow >= 128)) & ~own
        objects |= own
    noise = rng.uniform(2, 5) * rng.standard_normal(shape, np.float32)
    image = cv2.add(image, cv2.merge([noise] * 3), dtype=cv2.CV_8U)
    return image, {"object": objects, "shadow": shadows}
