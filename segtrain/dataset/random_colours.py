"""Random changes of colours as in RandAugment (Cubuk et al. 2020, arXiv 1909.13719)."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network at import otherwise
import albumentations as A  # noqa: E402

from segtrain.values import Count, Fraction  # noqa: E402


class RandomColours:
    """RandAugment's operations that leave every pixel where it is, some one after the other.

    They are: none, auto-contrast, equalisation, brightness, contrast, saturation, sharpness,
    posterisation and solarisation.

    Args:
        count: operations that are drawn for an image, each alike, with repetition.
        strength: of each, 1 for the paper's largest: factors of 0.1 to 1.9, 4 bits a channel, any
            threshold of solarisation.
    """

    def __init__(self, count: Count, strength: Fraction) -> None:
        self.count = count
        self.strength = strength

    def steps(self) -> list[A.BaseCompose]:
        """What is done to an image, in order."""
        factor = 1 - 0.9 * self.strength, 1 + 0.9 * self.strength
        none = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}
        operations = [
            A.NoOp(p=1),
            A.AutoContrast(p=1),
            A.Equalize(p=1),
            *(A.ColorJitter(**none | {name: factor}, p=1)
              for name in ("brightness", "contrast", "saturation")),
            A.Sharpen(alpha=(0, self.strength), lightness=(1, 1), p=1),
            A.Posterize(num_bits=(8 - round(4 * self.strength), 8), p=1),
            A.Solarize(threshold_range=(1 - self.strength, 1), p=1),
        ]  # fmt: skip
        return [A.OneOf(operations, p=1) for _ in range(self.count)]
