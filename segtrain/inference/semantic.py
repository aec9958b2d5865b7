"""Scores of whole images from a semantic network: windows, scales, mirroring, and a CRF last."""

from collections.abc import Callable
from itertools import product
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from segtrain.contracts import resize
from segtrain.inference.resizing import by_size, resized
from segtrain.inference.window import SlidingWindow, look_once
from segtrain.values import FILLED, Positives, Size

Refinement = Callable[[Tensor, Tensor], Tensor]


class SemanticInference:
    """Looks at each image at every scale, mirrored or not, and averages the probabilities.

    Logits are resized to the image before they become probabilities, as in DeepLab's and PSPNet's
    codes.

    Args:
        window: through which pictures are looked at; None for whole ones.
        pad: for whole pictures, see `look_once`: for networks that are trained on crops of k times
            the output stride plus one pixel.
        scales: of the input; scores always come back at the image's own size.
        flip: also looks at the mirrored image.
        logit_adjustment: one term a class, added to its logits, or None. Minus a share of the log
            of the loss's class weights takes back the over-prediction that they cause in the end
            (Menon et al. 2021, Long-tail learning via logit adjustment).
        crf: (image (3, H, W) uint8, probabilities (K, H, W)) -> probabilities, applied last; or
            None.
        least_size: height and width at scale 1 that whole pictures are padded to at least, with
            the mean colour, or None: DeepLab tests VOC's images at the crop size of its training.
    """

    task: ClassVar[str] = "semantic"

    def __init__(
        self,
        window: SlidingWindow | None,
        pad: bool,
        scales: Positives,
        flip: bool,
        logit_adjustment: Annotated[list[float], FILLED] | None,
        crf: Refinement | None,
        least_size: Size | None = None,  # older runs have none
    ) -> None:
        self.window = window
        self.pad = pad
        self.scales = scales
        self.flip = flip
        self.logit_adjustment = logit_adjustment
        self.crf = crf
        self.least_size = least_size

    @property
    def protocol(self) -> dict:
        """What results call this way of testing."""
        return {
            "inference": "whole" if self.window is None else "sliding",
            "scales": self.scales,
            "flip": self.flip,
            "pad": self.pad,
            "crf": self.crf is not None,
            "logit_adjustment": self.logit_adjustment,
            **({} if self.least_size is None else {"least_size": list(self.least_size)}),
            **({} if self.window is None else self.window.protocol),
            **({} if self.crf is None else self.crf.protocol),
        }

    @property
    def gives_probabilities(self) -> bool:
        """Whether scores are probabilities; else they are logits."""
        return self.flip or len(self.scales) > 1 or self.crf is not None

    def __call__(self, model: nn.Module, images: list[Tensor]) -> list[Tensor]:
        """Images (3, H, W) uint8 RGB -> float32 scores (K, H, W), each in its image's size."""
        return by_size(images, lambda equal: self._score(model, equal))

    def _score(self, model: nn.Module, images: list[Tensor]) -> list[Tensor]:
        size = tuple(images[0].shape[1:])
        adjustment = None
        if self.logit_adjustment is not None:
            adjustment = torch.tensor(self.logit_adjustment).view(-1, 1, 1)
        views = list(product(self.scales, (False, True) if self.flip else (False,)))
        total: Tensor | None = None
        for scale, mirrored in views:
            batch, _ = resized(images, tuple(max(1, round(side * scale)) for side in size))
            batch = batch.contiguous(memory_format=torch.channels_last)
            seen = batch.flip(3) if mirrored else batch
            logits = self._look(model, seen, adjustment, size, scale)
            scores = logits.softmax(1) if self.gives_probabilities else logits
            scores = scores.flip(3) if mirrored else scores
            total = scores if total is None else total + scores
        mean = total / len(views)
        if self.crf is None:
            return list(mean)
        return [self.crf(image, own) for image, own in zip(images, mean, strict=True)]

    def _look(
        self,
        model: nn.Module,
        batch: Tensor,
        adjustment: Tensor | None,
        size: tuple[int, int],
        scale: float,
    ) -> Tensor:
        """Logits (N, K, *size) of pictures of one scale."""
        if self.window is None:
            # 513 is 257 at half the scale, as DeepLab's code has it: corners stay corners.
            least = [round((side - 1) * scale) + 1 for side in self.least_size or (1, 1)]
            return look_once(model, batch, adjustment, size, self.pad, tuple(least))
        scores = self.window(model, batch, adjustment)
        if self.window.average == "logits" or tuple(scores.shape[2:]) == size:
            return resize(scores, size, align_corners=False)
        # What was averaged is what is resized, as in PSPNet's code.
        return resize(scores.exp(), size, align_corners=False).log()
