"""Training samples made of two, for masks of classes: CutMix, ClassMix and copied classes.

Both are uint8 crops of the training preset. A pixel of the result and its label always come from
the same place of the same one of them; of panoptic sets, pasted instances get numbers that the
other sample does not have.
"""

import math
import random
from collections.abc import Callable
from typing import Annotated, Protocol

import numpy as np

from segtrain.contracts import InstanceTarget, TrainInstances
from segtrain.errors import UserError
from segtrain.label_set import VOID, LabelSet
from segtrain.segments import CROWD, MOST, numbers_of, pack
from segtrain.values import ASCENDING, FILLED, Count, Fraction, Share, Text

REACH = 64  # positions of the stream ahead from which other samples come; shards have these at hand

Sample = tuple[np.ndarray, np.ndarray | TrainInstances]
Read = Callable[[int], tuple[np.ndarray, np.ndarray | InstanceTarget]]
Transform = Callable[..., Sample]


class Mix(Protocol):
    """Makes the sample of a position of the training stream, out of it and some that follow it."""

    semantic: bool  # for masks of classes; else for instances
    overlapping: bool  # for classes that may overlap, too

    def __call__(self, read: Read, transform: Transform, seed: tuple[int, ...]) -> Sample:
        """One sample.

        Args:
            read: how many positions ahead, 0 for the position itself -> image and label.
            transform: (image, label, seed) -> augmented image and label.
            seed: of all that is drawn.
        """


class CutMix:
    """A rectangle of another sample (Yun et al. 2019; for segmentation French et al. 2020).

    Args:
        probability: of a sample that it is mixed.
        share: smallest and largest share of the crop's area; the sides are cut alike.
        labels: the data set's classes; None for masks of classes.
    """

    semantic = overlapping = True

    def __init__(
        self,
        probability: Fraction,
        share: Annotated[tuple[Share, Share], ASCENDING],
        labels: LabelSet | None = None,  # not in the configuration of older runs
    ) -> None:
        self.probability = probability
        self.share = tuple(share)
        self.panoptic = is_panoptic(labels)

    def __call__(self, read: Read, transform: Transform, seed: tuple[int, ...]) -> Sample:
        rng = generator(seed)
        first = transform(*read(0), seed)
        if rng.random() >= self.probability:
            return first
        height, width = first[1].shape[:2]
        side = math.sqrt(rng.uniform(*self.share))
        rows, columns = max(1, round(height * side)), max(1, round(width * side))
        top, left = rng.randint(0, height - rows), rng.randint(0, width - columns)
        chosen = np.zeros((height, width), bool)
        chosen[top : top + rows, left : left + columns] = True
        return pasted(first, another(read, transform, seed, rng), chosen, self.panoptic)


class ClassMix:
    """Half of the classes that another sample shows (Olsson et al. 2021, here by the true labels).

    Args:
        probability: of a sample that it is mixed.
        labels: the data set's classes; None for masks of classes.
    """

    semantic, overlapping = True, False

    def __init__(self, probability: Fraction, labels: LabelSet | None = None) -> None:
        self.probability = probability
        self.panoptic = is_panoptic(labels)

    def __call__(self, read: Read, transform: Transform, seed: tuple[int, ...]) -> Sample:
        rng = generator(seed)
        first = transform(*read(0), seed)
        if rng.random() >= self.probability:
            return first
        other = another(read, transform, seed, rng)
        classes = classes_of(other[1])
        shown = [label for label in np.unique(classes).tolist() if label != VOID]
        chosen = rng.sample(shown, math.ceil(len(shown) / 2))
        return pasted(first, other, np.isin(classes, chosen), self.panoptic)


class PasteClasses:
    """The pixels of chosen classes of another sample, such as rare ones.

    Args:
        labels: the data set's classes.
        classes: names of those that are pasted; None for the one with the fewest pixels that the
            other sample shows.
        probability: of a sample that it is mixed.
        tries: samples that are looked at for one that shows such a class, before none is pasted.

    Raises:
        UserError: there is no class of that name.
    """

    semantic, overlapping = True, False

    def __init__(
        self,
        labels: LabelSet,
        classes: Annotated[list[Text], FILLED] | None,
        probability: Fraction,
        tries: Count,
    ) -> None:
        unknown = [name for name in classes or () if name not in labels.names]
        if unknown:
            raise UserError(f"dataset.mix.classes: no class {', '.join(unknown)}; the data set has "
                            f"{', '.join(labels.names)}")  # fmt: skip
        self.panoptic = is_panoptic(labels)
        self.chosen = None if classes is None else [labels.names.index(name) for name in classes]
        self.probability = probability
        self.tries = tries

    def __call__(self, read: Read, transform: Transform, seed: tuple[int, ...]) -> Sample:
        rng = generator(seed)
        first = transform(*read(0), seed)
        if rng.random() >= self.probability:
            return first
        for _ in range(self.tries):
            other = another(read, transform, seed, rng)
            chosen = self._pixels(classes_of(other[1]))
            if chosen.any():
                return pasted(first, other, chosen, self.panoptic)
        return first

    def _pixels(self, mask: np.ndarray) -> np.ndarray:
        """Which pixels of train ids (H, W) are pasted."""
        if self.chosen is not None:
            return np.isin(mask, self.chosen)
        shown, counts = np.unique(mask[mask != VOID], return_counts=True)
        return np.isin(mask, shown[counts.argmin()] if shown.size else [])


def generator(seed: tuple[int, ...]) -> random.Random:
    """What mixing draws from, which is not what the transform of the same seed draws from."""
    return random.Random("mix/" + "/".join(map(str, seed)))


def another(read: Read, transform: Transform, seed: tuple[int, ...], rng: random.Random) -> Sample:
    """A sample from a little ahead in the stream, augmented by a seed of its own."""
    ahead = rng.randint(1, REACH)
    return transform(*read(ahead), (*seed, ahead))


def is_panoptic(labels: LabelSet | None) -> bool:
    """Whether masks are those of `segtrain.segments`."""
    return labels is not None and labels.things is not None


def classes_of(mask: np.ndarray) -> np.ndarray:
    """Train ids (H, W) of a mask of classes or of a panoptic one."""
    return mask if mask.ndim == 2 else mask[..., 0]


def pasted(first: Sample, other: Sample, chosen: np.ndarray, panoptic: bool) -> Sample:
    """The first sample with the chosen (H, W) pixels and labels of the other."""
    image, mask = (np.array(array) for array in first)
    labels = renumbered(other[1], mask) if panoptic else other[1]
    image[chosen], mask[chosen] = other[0][chosen], labels[chosen]
    return image, mask


def renumbered(mask: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A panoptic mask (H, W, 3) whose instances have higher numbers than those of another."""
    own, taken = numbers_of(mask), numbers_of(other)
    shift = taken[taken < CROWD].max(initial=0)
    single = (own > 0) & (own < CROWD)
    return pack(mask[..., 0], np.where(single, np.minimum(own + shift, MOST), own))
