"""Scores of whole images from a semantic network: windows, scales, mirroring, and a CRF last."""

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from segtrain.contracts import resize
from segtrain.errors import UserError
from segtrain.inference.resizing import (
    InputSize,
    Resampling,
    Rounding,
    by_size,
    fitted,
    require_size,
    resized,
)
from segtrain.inference.window import SlidingWindow, exponentials, look_once
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
        scales: of the input, relative to `size`; scores always come back at the image's own size.
        flip: also looks at the mirrored image.
        logit_adjustment: one term a class, added to its logits, or None. Minus a share of the log
            of the loss's class weights takes back the over-prediction that they cause in the end
            (Menon et al. 2021, Long-tail learning via logit adjustment).
        crf: (image (3, H, W) uint8, probabilities (K, H, W)) -> probabilities, applied last; or
            None.
        least_size: height and width at scale 1 that whole pictures are padded to at least, with
            the mean colour, or None: DeepLab tests VOC's images at the crop size of its training.
        size: that images are resized to before anything else, or None for their own. Logits of
            whole pictures are then resized to what the network has seen, and from there to the
            image.
        scores: what is averaged over scales and mirrored images: `softmax`; `logits`; or `exp_sum`,
            where logits of an image and its mirrored one are added, and their exponentials over the
            scales (as EncNet's release tests). None for probabilities where there are several looks
            or a CRF, and else for logits.
        rounding: of the sides that follow from `size`.
        resampling: how images are resized, see `Resampling`.
        align_scores: whether corners are aligned where scores are resized from what the network has
            seen to the image.

    Raises:
        UserError: `size` is none, or `exp_sum` does not go with what windows average.
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
        least_size: Size | None = None,  # older runs have none of these
        size: InputSize | None = None,
        scores: Literal["softmax", "logits", "exp_sum"] | None = None,
        rounding: Rounding = "nearest",
        resampling: Resampling = "antialiased",
        align_scores: bool = False,
    ) -> None:
        if size is not None:
            require_size(size, "inference.size")
        if window is not None and (scores == "exp_sum") != (window.average == "exponentials"):
            raise UserError(
                "inference.scores=exp_sum and inference.window.average=exponentials go together, "
                f"not scores={scores} and average={window.average}"
            )
        self.window = window
        self.pad = pad
        self.scales = scales
        self.flip = flip
        self.logit_adjustment = logit_adjustment
        self.crf = crf
        self.least_size = least_size
        self.size = size
        self.scores = scores
        self.rounding = rounding
        self.resampling = resampling
        self.align_scores = align_scores

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
            **({} if self.size is None else {"size": dict(self.size)}),
            **({} if self.scores is None else {"scores": self.scores}),
            **({} if self.rounding == "nearest" else {"rounding": self.rounding}),
            **({} if self.resampling == "antialiased" else {"resampling": self.resampling}),
            **({} if not self.align_scores else {"align_scores": True}),
            **({} if self.window is None else self.window.protocol),
            **({} if self.crf is None else self.crf.protocol),
        }

    @property
    def gives_probabilities(self) -> bool:
        """Whether scores are probabilities; else they are logits."""
        return self._averaged != "logits" or self.crf is not None

    @property
    def _averaged(self) -> str:
        if self.scores is not None:
            return self.scores
        several = self.flip or len(self.scales) > 1
        return "softmax" if several or self.crf is not None else "logits"

    def _probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(1)

    @property
    def _mirrors_crops(self) -> bool:
        """Whether windows look at the mirrored image, not this."""
        return self.flip and self.window is not None and self.window.mirror == "crop"

    def __call__(self, model: nn.Module, images: list[Tensor]) -> list[Tensor]:
        """Images (3, H, W) uint8 RGB -> float32 scores (K, H, W), each in its image's size."""
        return by_size(images, lambda equal: self._score(model, equal))

    def _score(self, model: nn.Module, images: list[Tensor]) -> list[Tensor]:
        size = tuple(images[0].shape[1:])
        adjustment = None
        if self.logit_adjustment is not None:
            adjustment = torch.tensor(self.logit_adjustment).view(-1, 1, 1)
        total: Tensor | None = None
        looks = 0
        for scale in self.scales:
            batch, _ = resized(images, self.size_seen(size, scale), self.resampling)
            batch = batch.contiguous(memory_format=torch.channels_last)
            found = []
            for mirrored in (False, True) if self.flip and not self._mirrors_crops else (False,):
                seen = batch.flip(3) if mirrored else batch
                scores = self._look(model, seen, adjustment, size, scale)
                if self._averaged in ("softmax", "probabilities"):
                    scores = self._probabilities(scores)
                found.append(scores.flip(3) if mirrored else scores)
            if self._averaged == "exp_sum":
                found = [exponentials(found)]
            for scores in found:
                total = scores if total is None else total + scores
            looks += len(found)
        mean = total / (total.sum(1, keepdim=True) if self._averaged == "exp_sum" else looks)
        if self.crf is None:
            return list(mean)
        if self._averaged == "logits":
            mean = mean.softmax(1)
        return [self.crf(image, own) for image, own in zip(images, mean, strict=True)]

    def size_seen(self, size: tuple[int, int], scale: float) -> tuple[int, int]:
        """Height and width at which images of `size` are seen."""
        if self.size is not None:
            return fitted(size, self.size, scale, self.rounding)
        return tuple(max(1, round(side * scale)) for side in size)

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
            first = size if self.size is None else tuple(batch.shape[2:])
            logits = look_once(model, batch, adjustment, first, self.pad, tuple(least))
            return resize(logits, size, self.align_scores)
        scores = self.window(model, batch, adjustment, self._mirrors_crops)
        if self.window.average == "logits" or tuple(scores.shape[2:]) == size:
            return resize(scores, size, self.align_scores)
        # What was averaged is what is resized, as in PSPNet's code.
        return resize(scores.exp(), size, self.align_scores).log()
