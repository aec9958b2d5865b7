"""Random textures: noise, spots, gradients, stripes and checkers in the colours of one palette."""

import math

import cv2
import numpy as np
from numpy.random import Generator

_LEVELS = np.linspace(-0.5, 0.5, 256)[:, None]  # of a texture's palette


def texture(rng: Generator, shape: tuple[int, int], side: int, colour: np.ndarray) -> np.ndarray:
    """Texture (H, W, 3) uint8 around a mean colour (RGB, 0..255); `side` sets its scale."""
    field = (_pattern(rng, shape, side) * 255).astype(np.uint8)
    swing = rng.uniform(0.05, 0.25) * (rng.uniform(0, 255, 3) - colour)
    palette = np.clip(colour + _LEVELS * swing, 0, 255).astype(np.uint8)
    return cv2.applyColorMap(field, palette[:, None])


def _pattern(rng: Generator, shape: tuple[int, int], side: int) -> np.ndarray:
    """Field (H, W) float32 in 0..1: noise, spots, gradient, stripes or checkers, equally often."""
    kind = rng.integers(5)
    if kind < 2:
        noise = _value_noise(rng, shape, rng.uniform(2, 12) / side)
        return noise if kind == 0 else np.clip(6 * noise - 2.5, 0, 1)
    angle = rng.uniform(0, 2 * math.pi)
    along = position(angle, shape)
    if kind == 2:
        return cv2.normalize(along, None, 0, 1, cv2.NORM_MINMAX)
    frequency, phase = 2 * math.pi * rng.uniform(4, 14) / side, rng.uniform(0, 2 * math.pi)
    # Waves with flattened crests.
    stripes = np.clip(np.sin(along * frequency + phase) + 0.5, 0, 1)
    if kind == 3:
        return stripes
    across = position(angle + math.pi / 2, shape)
    return np.abs(stripes - np.clip(np.sin(across * frequency + phase) + 0.5, 0, 1))


def position(angle: float, shape: tuple[int, int]) -> np.ndarray:
    """Field (H, W) float32: each pixel's position, in pixels, along a direction (radians)."""
    y, x = (np.arange(length, dtype=np.float32) for length in shape)
    return math.cos(angle) * x + math.sin(angle) * y[:, None]


def _value_noise(rng: Generator, shape: tuple[int, int], frequency: float) -> np.ndarray:
    """Field (H, W) float32 in 0..1: two octaves of smoothly interpolated random lattices."""
    field = np.zeros(shape, np.float32)
    for cells, amplitude in ((frequency, 1.0), (3 * frequency, 0.5)):  # lattice cells a pixel
        lattice = rng.random([2 + int(cells * length) for length in shape], np.float32)
        smooth = cv2.resize(lattice, shape[::-1], interpolation=cv2.INTER_CUBIC)
        cv2.scaleAdd(smooth, amplitude, field, field)
    return cv2.normalize(field, None, 0, 1, cv2.NORM_MINMAX)
