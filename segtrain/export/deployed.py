"""A network as other programs get it: plain pictures in, scores or classes of the same size out."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.architecture.lora import merge_low_rank
from segtrain.contracts import resize
from segtrain.errors import UserError
from segtrain.inference.multilabel import MultilabelInference, masks_of
from segtrain.inference.semantic import SemanticInference
from segtrain.inference.window import mean_colour

RESULTS = ("logits", "labels")  # labels of classes that may overlap are masks of 0 and 1


def one_look(inference: SemanticInference) -> SemanticInference:
    """Whole pictures at one scale, padded and with the terms for each class as `inference` says.

    Its scales, least size, mirroring, windows and CRF are left out: they are around the network.
    """
    return SemanticInference(
        window=None,
        pad=inference.pad,
        scales=[1.0],
        flip=False,
        logit_adjustment=inference.logit_adjustment,
        crf=None,
    )


def labels_of(logits: Tensor, inference: SemanticInference) -> Tensor:
    """What logits (N, K, H, W) say, as a run's inference decides.

    Returns:
        (N, H, W) uint8 train ids; or masks (N, K, H, W) uint8, 0 and 1, of classes that may
        overlap.
    """
    if isinstance(inference, MultilabelInference):
        return masks_of(logits.sigmoid(), inference.thresholds).to(torch.uint8)
    return logits.argmax(1).to(torch.uint8)


class Deployed(nn.Module):
    """What `one_look` finds, as a graph can have it.

    Padding and cropping are operations that take any size in an exported graph, maps lie in memory
    in PyTorch's default order, which any size fits, and low-rank terms are merged.

    Args:
        model: a semantic network.
        inference: of the run; see `one_look` for what is left of it.
        returns: `logits`, or `labels` for what `labels_of` makes of them.

    Raises:
        UserError: `returns` is none of those.
    """

    def __init__(self, model: nn.Module, inference: SemanticInference, returns: str) -> None:
        super().__init__()
        if returns not in RESULTS:
            raise UserError(f"returns={returns}: expected {' or '.join(RESULTS)}")
        self.model = merge_low_rank(model.to(memory_format=torch.contiguous_format))
        self.returns = (returns,)
        self.pads = inference.pad and model.align_corners
        self.mean_colour = mean_colour(model, torch.uint8).flatten().tolist()
        adjustment = inference.logit_adjustment
        terms = None if adjustment is None else torch.tensor(adjustment).view(-1, 1, 1)
        self.register_buffer("adjustment", terms)
        self.inference = inference
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 RGB -> (N, K, H, W) float32 logits, or labels, see `labels_of`."""
        size = image.shape[2:]
        stride = self.model.backbone.output_stride
        beyond = [-(length - 1) % stride if self.pads else 0 for length in size]
        seen = self._padded(image, beyond) if self.pads else image
        logits = self.model(seen)["logits"].float()
        if self.adjustment is not None:
            logits = logits + self.adjustment
        logits = resize(logits, seen.shape[2:], self.model.align_corners)
        if self.pads:  # a slice would bind an exported graph to sizes that are really padded
            logits = F.pad(logits, (0, -beyond[1], 0, -beyond[0]))
        return logits if self.returns == ("logits",) else labels_of(logits, self.inference)

    def _padded(self, image: Tensor, beyond: list[int]) -> Tensor:
        """Padded right and bottom with the mean colour."""
        return torch.cat([
            F.pad(channel, (0, beyond[1], 0, beyond[0]), value=colour)
            for channel, colour in zip(image.float().split(1, 1), self.mean_colour, strict=True)
        ], 1)  # fmt: skip
