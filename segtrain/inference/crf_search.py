"""Settings of the CRF by search on labelled images, from coarse to fine.

Chen et al. 2016, DeepLab (arXiv 1606.00915), section 4: 100 images of val; w1, sigma_alpha and
sigma_beta are searched for on a grid, then with smaller steps around the best of it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import groupby, product
from typing import NamedTuple, Protocol

from torch import Tensor

from segtrain.inference.crf import DenseCRF

Sample = tuple[Tensor, Tensor, Tensor]


class Setting(NamedTuple):
    """What is searched for; the names are DenseCRF's."""

    bilateral_sigma: float
    colour_sigma: float
    bilateral_weight: float


@dataclass(frozen=True)
class Grid:
    """Values to try first, ascending and in even steps; a single one stays as it is.

    The defaults are DeepLabv2's. DeepLab's w1, sigma_alpha and sigma_beta are the last and the
    first two of Setting's.
    """

    bilateral_sigma: tuple[float, ...] = (30, 40, 50, 60, 70, 80, 90, 100)
    colour_sigma: tuple[float, ...] = (3, 4, 5, 6)
    bilateral_weight: tuple[float, ...] = (3, 4, 5, 6)

    @property
    def axes(self) -> tuple[tuple[float, ...], ...]:
        """The values in the order of Setting."""
        return self.bilateral_sigma, self.colour_sigma, self.bilateral_weight


class Score(Protocol):
    """Collects the labels that one setting gives to all images."""

    def update(self, prediction: Tensor, mask: Tensor) -> None:
        """Counts an image: predicted labels (H, W) int64, true ones (H, W) with 255 for void."""

    def value(self) -> float:
        """Of all images so far, such as the mIoU; more is better."""


@dataclass(frozen=True)
class Search:
    """What a search finds.

    Args:
        best: the CRF with the best settings, the first of them where several are.
        trials: score of each setting in the order of trying.
    """

    best: DenseCRF
    trials: dict[Setting, float]


def search_crf(
    crf: DenseCRF,
    samples: Iterable[Sample],
    score: Callable[[], Score],
    grid: Grid | None = None,
    refinements: int = 1,
) -> Search:
    """Tries the settings of a grid, then half steps around the best, as often as asked.

    The kernels of an image are made once for all weights that are tried with them.

    Args:
        crf: the settings that are not searched for.
        samples: image (3, H, W) uint8 RGB, probabilities (K, H, W) and mask (H, W) of each image;
            gone through once a round, so a list or a loader, not a generator.
        score: makes an empty score.
        grid: of the first round, or DeepLabv2's.
        refinements: rounds after the first; each halves the steps.

    Raises:
        ValueError: a round found no samples.
    """
    grid = grid or Grid()
    trials = _try(crf, samples, score, product(*grid.axes))
    step = Setting(*(axis[1] - axis[0] if len(axis) > 1 else 0 for axis in grid.axes))
    for _ in range(refinements):
        step = Setting(*(size / 2 for size in step))
        near = _around(max(trials, key=trials.__getitem__), step)
        if untried := near - trials.keys():
            trials |= _try(crf, samples, score, untried)
    best = max(trials, key=trials.__getitem__)
    return Search(replace(crf, **best._asdict()), trials)


def _around(best: Setting, step: Setting) -> set[Setting]:
    """One step down and up from the best in all combinations, where values stay above zero."""
    axes = zip(best, step, strict=True)
    values = ({value - size, value, value + size} for value, size in axes)
    return {Setting(*chosen) for chosen in product(*values) if min(chosen) > 0}


def _try(
    crf: DenseCRF,
    samples: Iterable[Sample],
    score: Callable[[], Score],
    settings: Iterable[tuple[float, ...]],
) -> dict[Setting, float]:
    """The score of each setting over all samples."""
    scores = {Setting(*setting): score() for setting in sorted(settings)}
    image = None
    for image, probabilities, mask in samples:
        image = image.to(probabilities.device)
        position = crf.position_kernel(image)
        for _, same in groupby(scores, key=lambda setting: setting[:2]):
            tried = [replace(crf, **setting._asdict()) for setting in same]
            bilateral = tried[0].bilateral_kernel(image)
            for one in tried:
                marginals = one.mean_field(probabilities, position, bilateral)
                setting = (one.bilateral_sigma, one.colour_sigma, one.bilateral_weight)
                scores[Setting(*setting)].update(marginals.argmax(0), mask)
    if image is None:
        raise ValueError("no samples to search on; they must last for every round")
    return {setting: one.value() for setting, one in scores.items()}
