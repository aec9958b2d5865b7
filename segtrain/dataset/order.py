"""The order of an epoch's images, a function of seed and epoch alone."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=2)
def permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    """The order of one epoch's images."""
    return np.random.default_rng([seed, epoch, length]).permutation(length)


def block_order(blocks: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch visits blocks of images that lie together."""
    return np.random.default_rng([seed, epoch, blocks, 1]).permutation(blocks)


def windowed_permutation(
    counts: Sequence[int], window: int, seed: int, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """An order that shuffles blocks, then the images of each `window` blocks that follow.

    Whoever reads in this order needs no more than `window` blocks at a time.

    Args:
        counts: images of each block, which lie one after the other.
        window: blocks whose images are mixed.
        seed, epoch: of the order.

    Returns:
        The order (sum of counts,) and the offset at which each window ends.
    """
    rng = np.random.default_rng([seed, epoch, len(counts), window])
    ends = np.cumsum(counts)
    blocks = block_order(len(counts), seed, epoch)
    windows = [
        rng.permutation(
            np.concatenate(
                [np.arange(ends[b] - counts[b], ends[b]) for b in blocks[i : i + window]]
            )
        )
        for i in range(0, len(blocks), window)
    ]
    return np.concatenate(windows), np.cumsum([len(images) for images in windows])
