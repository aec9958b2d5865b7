"""Whole-image inference: one forward pass per image."""

from collections import defaultdict
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.contracts import resize


class WholeImage:
    """Scores of whole images at one scale.

    Args:
        scale: the input is resized by it first; scores always come back at the image's own size.
        flip: also looks at the mirrored image and averages the probabilities.
        pad: where scores are resized with aligned corners, first pads the image to k times the
            output stride plus one pixel, the only sizes at which cells lie where such resizing
            puts them. For networks that are trained on crops of such sizes.
        logit_adjustment: one term a class, added to its logits, or None. Minus a share of the log
            of the loss's class weights takes back the over-prediction that they cause in the end
            (Menon et al. 2021, Long-tail learning via logit adjustment).
    """

    task: ClassVar[str] = "semantic"

    def __init__(
        self, scale: float, flip: bool, pad: bool, logit_adjustment: list[float] | None
    ) -> None:
        self.scale = scale
        self.flip = flip
        self.pad = pad
        self.logit_adjustment = logit_adjustment

    @property
    def protocol(self) -> dict:
        """What results call this way of testing."""
        return {
            "inference": "whole",
            "scales": [self.scale],
            "flip": self.flip,
            "pad": self.pad,
            "crf": False,
            "logit_adjustment": self.logit_adjustment,
        }

    def __call__(self, model: nn.Module, images: list[Tensor]) -> list[Tensor]:
        """Images (3, H, W) uint8 RGB -> float32 scores (K, H, W), each in its image's size.

        Scores are logits, or probabilities where mirrored passes are averaged.

        Images of equal size share a forward pass. No padding is involved, so what stands beside an
        image in its batch does not change its result.
        """
        by_size = defaultdict(list)
        for index, image in enumerate(images):
            by_size[image.shape[1:]].append(index)
        results: dict[int, Tensor] = {}
        for size, indices in by_size.items():
            batch = torch.stack([images[index] for index in indices])
            batch = batch.contiguous(memory_format=torch.channels_last)
            results.update(zip(indices, self._forward(model, batch, size), strict=True))
        return [results[index] for index in range(len(images))]

    def _forward(self, model: nn.Module, batch: Tensor, size: torch.Size) -> Tensor:
        if self.scale != 1:
            scaled = [max(1, round(length * self.scale)) for length in size]
            batch = F.interpolate(batch.float(), scaled, mode="bilinear", antialias=self.scale < 1)
        scores = self._scores(model, batch)
        if self.flip:
            mirrored = self._scores(model, batch.flip(3)).flip(3)
            scores = (scores.softmax(1) + mirrored.softmax(1)) / 2
        aligned = model.align_corners and not self.pad
        return resize(scores, size, aligned)

    def _scores(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Logits of a batch; in the batch's own size where it had to be padded."""
        padded = pad_to_cells(batch, model) if self.pad and model.align_corners else batch
        logits = model(padded)["logits"].float()
        if self.logit_adjustment is not None:
            logits = logits + logits.new_tensor(self.logit_adjustment).view(-1, 1, 1)
        if padded is batch:
            return logits
        logits = resize(logits, padded.shape[2:], align_corners=True)
        return logits[:, :, : batch.shape[2], : batch.shape[3]]


def pad_to_cells(batch: Tensor, model: nn.Module) -> Tensor:
    """Pads right and bottom with the mean colour to sizes of the form k * output stride + 1."""
    stride = model.backbone.output_stride
    height, width = (-(-(length - 1) // stride) * stride + 1 for length in batch.shape[2:])
    mean = model.backbone.normalize.mean.to(batch.dtype)
    padded = mean.expand(len(batch), 3, height, width)
    padded = padded.contiguous(memory_format=torch.channels_last)
    padded[:, :, : batch.shape[2], : batch.shape[3]] = batch
    return padded
