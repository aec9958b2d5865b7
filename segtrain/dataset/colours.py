"""Photometric jitter as a colour matrix, applied by a loader worker or by the device."""

import random

import numpy as np
import torch
from torch import Tensor

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
YIQ = np.array([LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


class PhotometricJitter:
    """Brightness, contrast, saturation and hue as one colour matrix, so one pass over the pixels.

    Each strength s draws a factor uniformly from [1-s, 1+s]; hue rotates by up to `hue` turns in
    the IQ plane. Contrast pivots on mid-grey.
    """

    def __init__(self, brightness: float, contrast: float, saturation: float, hue: float) -> None:
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue

    def draw(self, rng: random.Random) -> np.ndarray:
        """(3, 4) float32: RGB 0..255 and 1 -> RGB; see `recolour`."""
        angle = 2 * np.pi * rng.uniform(-self.hue, self.hue)
        chroma = 1 + rng.uniform(-self.saturation, self.saturation)
        gain = 1 + rng.uniform(-self.contrast, self.contrast)
        light = 1 + rng.uniform(-self.brightness, self.brightness)
        cos, sin = chroma * np.cos(angle), chroma * np.sin(angle)
        turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        matrix = light * gain * np.linalg.inv(YIQ) @ turn @ YIQ
        shift = np.full((3, 1), light * (1 - gain) * 127.5)
        return np.hstack([matrix, shift]).astype(np.float32)


def recolour(images: Tensor, colours: Tensor) -> Tensor:
    """As `cv2.transform` of each image, within one level of 255, on any device.

    Args:
        images: (N, 3, H, W) uint8 RGB.
        colours: (N, 3, 4) of `PhotometricJitter.draw`.

    Returns:
        (N, 3, H, W) uint8 channels_last, rounded, saturated to 0..255.
    """
    # No matrix product: it might be rounded to TF32, which has fewer digits than a pixel.
    parts = [colours[:, :, i, None, None] * images[:, i : i + 1] for i in range(3)]
    changed = parts[0] + parts[1] + parts[2] + colours[:, :, 3, None, None]
    changed = changed.round_().clamp_(0, 255)
    return changed.to(torch.uint8, memory_format=torch.channels_last)
