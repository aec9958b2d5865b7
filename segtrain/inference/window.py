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

# What becomes of the last window of a row or column, see `SlidingWindow`.
Last = Literal["inwards", "padded", "spread"]
LARGEST_LOGIT = 80.0  # of which exponentials are taken


class SlidingWindow:
    """Overlapping crops, averaged where they overlap (PSPNet, arXiv 1612.01105, 5.1).

    The crops of some rows of windows go through the network in batches; what no later row touches
    is finished, so that memory follows the rows, not the picture.

    Args:
        crop_size: height and width of a window.
        stride: vertically and horizontally, from one window to the next.
        average: `logits`, `probabilities` as in PSPNet's code, or `exponentials` of logits as in
            EncNet's.
        crops_at_once: that go through the network together.
        canvas: `device`, or `cpu` for pictures whose scores do not fit on the device.
        padding: where pictures smaller than a window are padded to its size: at the `end` (right
            and below), or all around, the picture in the `centre`. With `none` windows are cut to
            the picture instead.
        fill: what is padded with: the `mean` colour in whole steps of 255, as crops are in
            training; the `exact_mean`; or `black`.
        last: the last window of a row or column is moved `inwards`, to end with the picture; or all
            are, so that they are `spread` evenly, as in EoMT's code; or it stays at its stride and
            is `padded` where the picture has ended.
        mirror: what is mirrored where the mirrored image is looked at too: the `picture`, over
            which windows then slide from its left; or each `crop`, whose scores are averaged with
            its mirrored one's, or added for `exponentials`.

    Raises:
        UserError: the windows would leave gaps.
    """

    def __init__(
        self,
        crop_size: Size,
        stride: Size,
        average: Literal["logits", "probabilities", "exponentials"],
        crops_at_once: Count,
        canvas: Literal["device", "cpu"],
        padding: Literal["end", "centre", "none"] = "end",  # older runs have none of these
        fill: Literal["mean", "exact_mean", "black"] = "mean",
        last: Last = "inwards",
        mirror: Literal["picture", "crop"] = "picture",
    ) -> None:
        if any(step > side for step, side in zip(stride, crop_size, strict=True)):
            raise UserError(f"stride={stride} leaves gaps between windows of {crop_size}")
        self.crop_size = tuple(crop_size)
        self.stride = tuple(stride)
        self.average = average
        self.crops_at_once = crops_at_once
        self.canvas = canvas
        self.padding = padding
        self.fill = fill
        self.last = last
        self.mirror = mirror

    @property
    def protocol(self) -> dict:
        """What results call this way of looking."""
        more = {"padding": "end", "fill": "mean", "last": "inwards", "mirror": "picture"}
        return {
            "crop_size": list(self.crop_size),
            "stride": list(self.stride),
            "average": self.average,
            **{key: own for key in more if (own := getattr(self, key)) != more[key]},
        }

    def __call__(
        self, model: nn.Module, batch: Tensor, adjustment: Tensor | None, mirrored: bool = False
    ) -> Tensor:
        """Pictures (N, 3, H, W), in 0..255 -> logits (N, K, H, W) float32.

        Where probabilities or exponentials are averaged, their logarithms. With `mirrored` each
        crop is also looked at mirrored.
        """
        return torch.stack([
            torch.cat([band for _, band in self.bands(model, picture, adjustment, mirrored)], 1)
            for picture in batch
        ])  # fmt: skip

    def bands(
        self, model: nn.Module, picture: Tensor, adjustment: Tensor | None, mirrored: bool = False
    ) -> Iterator[tuple[int, Tensor]]:
        """Finished rows of one picture (3, H, W), from the top: first row and logits (K, h, W)."""
        height, width = picture.shape[1:]
        crop = self.crop_size
        if self.padding == "none":
            crop = min(crop[0], height), min(crop[1], width)
        rows, columns = (
            window_starts(length, side, step, self.last)
            for length, side, step in zip((height, width), crop, self.stride, strict=True)
        )
        covered = max(height, rows[-1] + crop[0]), max(width, columns[-1] + crop[1])
        picture, (above, left) = self._padded(model, picture, covered)
        together = max(1, self.crops_at_once // len(columns))  # rows of windows
        across = coverage(columns, crop[1], covered[1])
        down = coverage(rows, crop[0], covered[0])
        open_rows: Tensor | None = None  # sums of rows that later windows add to
        for first in range(0, len(rows), together):
            group = rows[first : first + together]
            top, bottom = group[0], group[-1] + crop[0]
            windows = [(row, column) for row in group for column in columns]
            span = slice(top, bottom)
            sums = self._sums(model, picture[:, span], crop, windows, adjustment, mirrored)
            if open_rows is not None:
                sums[:, : open_rows.shape[1]] += open_rows
            done = rows[first + together] if first + together < len(rows) else bottom
            counts = down[top:done, None] * across
            finished = sums[:, : done - top] / counts.to(sums.device)
            open_rows = sums[:, done - top :]
            if self.average != "logits":  # they may have underflowed
                finished = finished.clamp(min=torch.finfo(finished.dtype).tiny).log()
            # A picture with something above it is lower than a window: it has one band.
            yield top, finished[:, above : above + height - top, left : left + width]

    def _sums(
        self,
        model: nn.Module,
        rows: Tensor,
        crop: tuple[int, int],
        windows: list[tuple[int, int]],
        adjustment: Tensor | None,
        mirrored: bool,
    ) -> Tensor:
        """(K, h, W) sums of what windows show of rows (3, h, W), from the first window's on."""
        top = windows[0][0]
        places = [(slice(row - top, row - top + crop[0]), slice(column, column + crop[1]))
                  for row, column in windows]  # fmt: skip
        sums: Tensor | None = None
        for start in range(0, len(windows), self.crops_at_once):
            chunk = places[start : start + self.crops_at_once]
            crops = torch.stack([rows[:, y, x] for y, x in chunk])
            crops = crops.contiguous(memory_format=torch.channels_last)
            scores = self._look(model, crops, adjustment, mirrored)
            if self.canvas == "cpu":
                scores = scores.cpu()
            if sums is None:
                sums = scores.new_zeros(scores.shape[1], *rows.shape[1:])
            for (y, x), score in zip(chunk, scores, strict=True):
                sums[:, y, x] += score
        return sums

    def _look(
        self, model: nn.Module, crops: Tensor, adjustment: Tensor | None, mirrored: bool
    ) -> Tensor:
        """(N, K, h, w) what is averaged over windows, of crops (N, 3, h, w)."""
        looks = []
        for is_mirrored in (False, True) if mirrored else (False,):
            seen = crops.flip(3) if is_mirrored else crops
            scores = adjusted_logits(model, seen, adjustment)
            scores = resize(scores, crops.shape[2:], model.align_corners)
            if self.average == "probabilities":
                scores = scores.softmax(1)
            looks.append(scores.flip(3) if is_mirrored else scores)
        if self.average == "exponentials":
            return exponentials(looks)
        return looks[0] if not mirrored else (looks[0] + looks[1]) / 2

    def _padded(
        self, model: nn.Module, picture: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, tuple[int, int]]:
        """The picture padded to (3, *size), and the row and column at which it begins there."""
        height, width = picture.shape[1:]
        if (height, width) == size:
            return picture, (0, 0)
        if self.fill == "exact_mean":
            picture = picture.float()
            colour = model.backbone.normalize.mean
        else:
            colour = mean_colour(model, picture.dtype) * (self.fill == "mean")
        above, left = (
            (whole - side) // 2 if self.padding == "centre" and side < crop else 0
            for whole, side, crop in zip(size, (height, width), self.crop_size, strict=True)
        )
        filled = colour[0].expand(3, *size).clone()
        filled[:, above : above + height, left : left + width] = picture
        return filled, (above, left)


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


def window_starts(length: int, window: int, stride: int, last: Last = "inwards") -> list[int]:
    """First pixels of windows that cover a side, see `SlidingWindow`."""
    end = max(length - window, 0)
    count = -(-end // stride) + 1
    if last == "spread" and count > 1:
        return [number * end // (count - 1) for number in range(count)]
    starts = [number * stride for number in range(count)]
    return starts if last == "padded" else [*starts[:-1], min(starts[-1], end)]


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


def exponentials(logits: list[Tensor]) -> Tensor:
    """Of the sum of logits, cut off where sums of the exponentials would not be finite."""
    return sum(logits).clamp(max=LARGEST_LOGIT).exp()


def mean_colour(model: nn.Module, dtype: torch.dtype) -> Tensor:
    """(1, 3, 1, 1) what pictures are padded with: in whole steps of 255, as crops in training."""
    return model.backbone.normalize.mean.round().to(dtype)


def padded(batch: Tensor, model: nn.Module, size: tuple[int, int], black: bool = False) -> Tensor:
    """Pictures (N, 3, H, W) with the mean colour, or black, right and below: (N, 3, *size)."""
    colour = mean_colour(model, batch.dtype) * (not black)
    filled = colour.expand(len(batch), 3, *size)
    filled = filled.contiguous(memory_format=torch.channels_last)
    filled[:, :, : batch.shape[2], : batch.shape[3]] = batch
    return filled
