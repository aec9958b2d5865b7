"""Labels of pictures whose scores do not fit in memory: part by part, decided at once.

K classes, H x W pixels.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.inference.window import Last, SlidingWindow, window_starts

LEAST = -1e30  # of a score: between the logs of two probabilities of zero there would be nothing
SCORES = 2**26  # values that are held at once, 256 MiB; several times as much for a moment

Decide = Callable[[Tensor], Tensor]  # scores (K, h, w) -> labels (h, w) or masks (K, h, w)


def largest(scores: Tensor) -> Tensor:
    """Scores (K, h, w), K at most 255 -> train ids (h, w) uint8."""
    return scores.argmax(0).to(torch.uint8)


def label_map(
    window: SlidingWindow,
    model: nn.Module,
    picture: Tensor,
    adjustment: Tensor | None,
    num_classes: int,
    decide: Decide = largest,
) -> np.ndarray:
    """What is decided by what sliding windows show of a picture, to the last pixel.

    The picture is looked at in upright strips, each strip in rows of windows from the top, and
    labels are all that is kept. Strips overlap by the windows that straddle their borders.

    Args:
        window: how the picture is looked at.
        model: the network.
        picture: (3, H, W) uint8 RGB, on the network's device.
        adjustment: one term a class (K, 1, 1), added to its logits, or None.
        num_classes: K.
        decide: of scores, which are logits or logarithms of what windows average.

    Returns:
        (H, W) or (K, H, W), as `decide` gives it.
    """
    labels = None
    widest = max(1, SCORES // (num_classes * window.crop_size[0]))
    width = picture.shape[2]
    if window.last == "spread":  # those of a part would lie elsewhere
        widest = width
    for seen, done in strips(width, window.crop_size[1], window.stride[1], widest, window.last):
        part = picture[:, :, seen.start : seen.stop]
        kept = slice(done.start - seen.start, done.stop - seen.start)
        for top, scores in window.bands(model, part, adjustment):
            part_of_it = decide(scores[:, :, kept]).cpu().numpy()
            labels = _room(labels, part_of_it, tuple(picture.shape[1:]))
            rows = slice(top, top + part_of_it.shape[-2])
            labels[..., rows, done.start : done.stop] = part_of_it
    return labels


def _room(labels: np.ndarray | None, part: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Where all parts go, which is made for the first."""
    return np.empty((*part.shape[:-2], *size), part.dtype) if labels is None else labels


def enlarged_labels(
    scores: Tensor, size: tuple[int, int], decide: Decide = largest
) -> np.ndarray:
    """What is decided by scores resized bilinearly (without aligned corners), some rows at a time.

    Args:
        scores: (K, h, w).
        size: H and W.
        decide: of scores.

    Returns:
        (H, W) or (K, H, W), as `decide` gives it.
    """
    if scores.shape[1:] == size:
        return decide(scores).cpu().numpy()
    scores = scores.clamp(min=LEAST)
    labels = None
    height = scores.shape[1]
    position = (torch.arange(size[0], device=scores.device) + 0.5) * (height / size[0]) - 0.5
    position = position.clamp(0, height - 1)
    above = position.long()
    below, share = (above + 1).clamp(max=height - 1), (position - above)[:, None]
    rows = max(1, SCORES // (len(scores) * size[1]))
    for top in range(0, size[0], rows):
        part = slice(top, top + rows)
        band = torch.lerp(scores[:, above[part]], scores[:, below[part]], share[part])
        wide = (band.shape[1], size[1])
        band = F.interpolate(band[None], wide, mode="bilinear", align_corners=False)[0]
        decided = decide(band).cpu().numpy()
        labels = _room(labels, decided, size)
        labels[..., part, :] = decided
    return labels


def strips(
    width: int, window: int, stride: int, widest: int, last_window: Last = "inwards"
) -> Iterator[tuple[slice, slice]]:
    """Columns that are looked at together, and those of them that are finished by it.

    Each strip has all windows that touch its finished columns, where a picture as a whole has them.

    Args:
        width: of the picture.
        window: width of a window.
        stride: from one window to the next.
        widest: columns of a strip, unless windows demand more.
        last_window: what becomes of it, see `SlidingWindow`.
    """
    starts = window_starts(width, window, stride, last_window)
    first = done = 0  # of the windows, of the columns
    while done < width:
        last = first
        while last + 1 < len(starts) and starts[last + 1] + window - starts[first] <= widest:
            last += 1
        # The columns from the next window on are its business too: they are not finished yet.
        while last + 1 < len(starts) and starts[last + 1] <= done:
            last += 1
        end = starts[last + 1] if last + 1 < len(starts) else width
        yield slice(starts[first], min(starts[last] + window, width)), slice(done, end)
        done = end
        first = next((n for n, start in enumerate(starts) if start + window > done), len(starts))
