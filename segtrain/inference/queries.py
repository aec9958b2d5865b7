"""What a mask classification network says of whole images, a few masks at a time at their size.

Q queries, K classes, H x W pixels of the image.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from segtrain.contracts import resize
from segtrain.inference.resizing import (
    InputSize,
    Resampling,
    Rounding,
    fitted,
    require_size,
    resized,
)
from segtrain.inference.window import padded
from segtrain.values import Size

VALUES = 2**24  # mask logits that are held at once, 64 MiB; several times as much for a moment

Fill = Literal["mean", "black"]


class Look:
    """One look at the whole image at one size.

    Args:
        size: that images are resized to, or None for their own.
        least_size: height and width that they are padded to at least, right and below, or None.
        fill: the colour of the padding: the `mean`, as in training, or `black`.
        rounding: of the sides that follow from `size`.
        resampling: how images are resized, see `Resampling`.

    Raises:
        UserError: `size` is none.
    """

    def __init__(
        self,
        size: InputSize | None,
        least_size: Size | None,
        fill: Fill,
        rounding: Rounding,
        resampling: Resampling,
    ) -> None:
        if size is not None:
            require_size(size, "inference.size")
        self.size = size
        self.least_size = least_size
        self.fill = fill
        self.rounding = rounding
        self.resampling = resampling

    @property
    def protocol(self) -> dict:
        """What results call this way of looking."""
        return {
            "scales": [1.0],
            "flip": False,
            "crf": False,
            "size": None if self.size is None else dict(self.size),
            "least_size": None if self.least_size is None else list(self.least_size),
            "fill": self.fill,
            "rounding": self.rounding,
            "resampling": self.resampling,
        }

    def __call__(self, model: nn.Module, images: list[Tensor]) -> list["Answer"]:
        """Images (3, H, W) uint8 RGB of one size -> what the network says of each."""
        size = tuple(images[0].shape[1:])
        seen = size if self.size is None else fitted(size, self.size, rounding=self.rounding)
        batch, _ = resized(images, seen, self.resampling)
        batch = batch.contiguous(memory_format=torch.channels_last)
        full = tuple(max(pair) for pair in zip(seen, self.least_size or (1, 1), strict=True))
        if full != seen:
            batch = padded(batch, model, full, self.fill == "black")
        found = model.queries(batch)
        pairs = zip(found["class_logits"], found["mask_logits"], strict=True)
        return [Answer(classes.float(), masks, full, seen, size) for classes, masks in pairs]


class Answer(NamedTuple):
    """Of one image. Masks are resized to what the network has seen, and from there to the image."""

    class_logits: Tensor  # (Q, K + 1), the last one of "no object"
    mask_logits: Tensor  # (Q, h, w)
    full: tuple[int, int]  # height and width of what was seen, with its padding
    seen: tuple[int, int]  # without
    size: tuple[int, int]  # H and W

    def masks(self, chosen: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Mask logits (q, H, W) float32 of some queries after others, and which they are.

        So memory follows the image and not the number of queries.

        Args:
            chosen: (m,) the queries, or None for all; slices are of these.
        """
        cells = self.mask_logits if chosen is None else self.mask_logits[chosen]
        together = max(1, VALUES // (self.size[0] * self.size[1]))
        for first in range(0, len(cells), together):
            part = slice(first, min(first + together, len(cells)))
            seen = resize(cells[None, part].float(), self.full, align_corners=False)
            seen = seen[:, :, : self.seen[0], : self.seen[1]]
            yield part, resize(seen, self.size, align_corners=False)[0]
