"""How a network looks at pictures of one size: at once, or through a sliding window.

N pictures, K classes, H x W pixels.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from segtrain.contracts import resize
from segtrain.errors import UserError
from segtrain.values import Count, Size


class SlidingWindow:
    """Overlapping crops, averaged where they overlap (PSPNet, arXiv 1612.01105, 5.1).

    The crops of some rows of windows go through the network in batches; what no later row touches
    is finished, so that memory follows the rows, not the picture.

    Args:
        crop_size: height and width of a window. Smaller pictures are padded with the mean colour.
        stride: vertically and horizontally, from one window to the next.
        average: `logits`, or `probabilities` as in PSPNet's code.
        crops_at_once: that go through the network together.
        canvas: `device`, or `cpu` for pictures whose scores do not fit on the device.

    Raises:
        UserError: the windows would leave gaps.
    """

    def __init__(
        self,
        crop_size: Size,
        stride: Size,
        average: Literal["logits", "probabilities"],
        crops_at_once: Count,
        canvas: Literal["device", "cpu"],
    ) -> None:
        if any(step > side for step, side in zip(stride, crop_size, strict=True)):
            raise UserError(f"stride={stride} leaves gaps between windows of {crop_size}")
        self.crop_size = tuple(crop_size)
        self.stride = tuple(stride)
        self.average = average
        self.crops_at_once = crops_at_once
        self.canvas = canvas

    @property
    def protocol(self) -> dict:
        """What results call this way of looking."""
        return {
            "crop_size": list(self.crop_size),
            "stride": list(self.stride),
            "average": self.average,
        }

    def __call__(self, model: nn.Module, batch: Tensor, adjustment: Tensor | None) -> Tensor:
        """Pictures (N, 3, H, W), in 0..255 -> logits (N, K, H, W) float32.

        Where probabilities are averaged, their logarithms.
        """
        return torch.stack([
            torch.cat([band for _, band in self.bands(model, picture, adjustment)], 1)
            for picture in batch
        ])  # fmt: skip

    def bands(
        self, model: nn.Module, picture: Tensor, adjustment: Tensor | None
    ) -> Iterator[tuple[int, Tensor]]:
        """Finished rows of one picture (3, H, W), from the top: first row and logits (K, h, W)."""
        height, width = picture.shape[1:]
        rows, columns = (
            window_starts(length, crop, step)
            for length, crop, step in zip((height, width), self.crop_size, self.stride, strict=True)
        )
        together = max(1, self.crops_at_once // len(columns))  # rows of windows
        across = coverage(columns, self.crop_size[1], width)
        down = coverage(rows, self.crop_size[0], height)
        open_rows: Tensor | None = None  # sums of rows that later windows add to
        for first in range(0, len(rows), together):
            group = rows[first : first + together]
            top = group[0]
            bottom = min(group[-1] + self.crop_size[0], height)
            windows = [(row, column) for row in group for column in columns]
            sums = self._sums(model, picture, windows, (top, bottom), adjustment)
            if open_rows is not None:
                sums[:, : open_rows.shape[1]] += open_rows
            done = rows[first + together] if first + together < len(rows) else bottom
            counts = down[top:done, None] * across
            finished = sums[:, : done - top] / counts.to(sums.device)
            open_rows = sums[:, done - top :]
            if self.average == "probabilities":  # which may have underflowed
                finished = finished.clamp(min=torch.finfo(finished.dtype).tiny).log()
            yield top, finished

    def _sums(
        self,
        model: nn.Module,
        picture: Tensor,
        windows: list[tuple[int, int]],
        span: tuple[int, int],
        adjustment: Tensor | None,
    ) -> Tensor:
        """(K, bottom - top, W) sums of what the windows show, of the rows that they span."""
        sums: Tensor | None = None
        for start in range(0, len(windows), self.crops_at_once):
            chunk = windows[start : start + self.crops_at_once]
            crops = torch.stack([self._cut(model, picture, window) for window in chunk])
            crops = crops.contiguous(memory_format=torch.channels_last)
            scores = adjusted_logits(model, crops, adjustment)
            scores = resize(scores, self.crop_size, model.align_corners)
            if self.average == "probabilities":
                scores = scores.softmax(1)
            if self.canvas == "cpu":
                scores = scores.cpu()
            if sums is None:
                sums = scores.new_zeros(scores.shape[1], span[1] - span[0], picture.shape[2])
            for (row, column), score in zip(chunk, scores, strict=True):
                target = sums[:, row - span[0] :, column:][
                    :, : self.crop_size[0], : self.crop_size[1]
                ]
                target += score[:, : target.shape[1], : target.shape[2]]
        return sums

    def _cut(self, model: nn.Module, picture: Tensor, window: tuple[int, int]) -> Tensor:
        """(3, *crop_size) of the picture, padded with the mean colour where it ends."""
        row, column = window
        crop = picture[:, row : row + self.crop_size[0], column : column + self.crop_size[1]]
        if crop.shape[1:] == self.crop_size:
            return crop
        padded = mean_colour(model, crop.dtype)[0].expand(3, *self.crop_size).clone()
        padded[:, : crop.shape[1], : crop.shape[2]] = crop
        return padded


def look_once(
    model: nn.Module,
    batch: Tensor,
    adjustment: Tensor | None,
    size: tuple[int, int],
    pad: bool,
    least_size: tuple[int, int] = (0, 0),
) -> Tensor:
    """Pictures (N, 3, H, W), in 0..255 -> logits (N, K, *size) float32, by one forward pass.

    The pictures are first padded to `least_size` at least. With `pad`, where corners are aligned,
    also to k times the output stride plus one pixel, the only sizes at which cells lie where such
    resizing puts them.
    """
    height, width = (max(sides) for sides in zip(batch.shape[2:], least_size, strict=True))
    aligned = pad and model.align_corners
    if aligned:
        stride = model.backbone.output_stride
        height, width = (-(-(length - 1) // stride) * stride + 1 for length in (height, width))
    elif (height, width) == tuple(batch.shape[2:]):
        return resize(adjusted_logits(model, batch, adjustment), size, model.align_corners)
    logits = adjusted_logits(model, padded(batch, model, (height, width)), adjustment)
    logits = resize(logits, (height, width), model.align_corners)
    return resize(logits[:, :, : batch.shape[2], : batch.shape[3]], size, False)


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """First pixels of windows that cover a side; the last is moved back to end with it."""
    count = -(-max(length - window, 0) // stride) + 1
    return [min(number * stride, max(length - window, 0)) for number in range(count)]


def coverage(starts: list[int], window: int, length: int) -> Tensor:
    """(length,) by how many windows each pixel of a side is seen."""
    counts = torch.zeros(length)
    for start in starts:
        counts[start : start + window] += 1
    return counts


def adjusted_logits(model: nn.Module, batch: Tensor, adjustment: Tensor | None) -> Tensor:
    """Logits (N, K, h, w) float32 of a batch, with a term for each class."""
    logits = model(batch)["logits"].float()
    return logits if adjustment is None else logits + adjustment.to(logits.device)


def mean_colour(model: nn.Module, dtype: torch.dtype) -> Tensor:
    """(1, 3, 1, 1) what pictures are padded with: in whole steps of 255, as crops in training."""
    return model.backbone.normalize.mean.round().to(dtype)


def padded(batch: Tensor, model: nn.Module, size: tuple[int, int]) -> Tensor:
    """Pictures (N, 3, H, W) with the mean colour right and below: (N, 3, *size)."""
    filled = mean_colour(model, batch.dtype).expand(len(batch), 3, *size)
    filled = filled.contiguous(memory_format=torch.channels_last)
    filled[:, :, : batch.shape[2], : batch.shape[3]] = batch
    return filled
