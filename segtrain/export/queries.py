"""A mask classification network as other programs get it, and what its answers show.

Q queries, K classes, H x W pixels.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from segtrain.architecture.lora import merge_low_rank
from segtrain.contracts import Detections, Segments
from segtrain.export.compare import REQUIRED_AGREEMENT, batches
from segtrain.inference.masks import MaskInference
from segtrain.inference.panoptic import PanopticInference
from segtrain.inference.queries import Answer

OUTPUTS = ("class_logits", "mask_logits")
OfQueries = PanopticInference | MaskInference


class DeployedQueries(nn.Module):
    """What the queries say of pictures at their own size, as a graph can have it.

    Resizing and padding, which a run's inference does before, and what it makes of the answers are
    around the network; `found_in` is the latter.

    Args:
        model: a mask classification network.
    """

    returns = OUTPUTS

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = merge_low_rank(model.to(memory_format=torch.contiguous_format))
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) uint8 RGB -> float32 class_logits and mask_logits.

        Returns:
            (N, Q, K + 1), the last one of "no object"; and (N, Q, H, W), above 0 inside masks.
        """
        found = self.model.queries(image)
        return found["class_logits"].float(), found["mask_logits"].float()


def found_in(
    class_logits: Tensor, mask_logits: Tensor, inference: OfQueries
) -> list[Segments] | list[Detections]:
    """What the outputs of `DeployedQueries`, or of its graph, show in each of N pictures.

    Args:
        class_logits: (N, Q, K + 1).
        mask_logits: (N, Q, H, W).
        inference: of the run, whose thresholds and numbers decide.
    """
    size = tuple(mask_logits.shape[2:])
    return [
        inference.decide(Answer(classes, masks, size, size, size))
        for classes, masks in zip(class_logits, mask_logits, strict=True)
    ]


class QueryComparison(NamedTuple):
    """How far two networks agree on pictures of one size."""

    size: tuple[int, int]  # height and width
    pictures: int
    largest_difference: float  # of logits, of classes and masks
    largest_logit: float
    class_agreement: float  # share of the queries with the same class, 0..1
    mask_agreement: float  # share of the masks' pixels that are inside both or outside both

    @property
    def passed(self) -> bool:
        """Whether the exported network may take the original's place."""
        return min(self.class_agreement, self.mask_agreement) >= REQUIRED_AGREEMENT

    @property
    def row(self) -> dict[str, str]:
        """Titles and texts of a table."""
        return {
            "size": "x".join(map(str, self.size)),
            "pictures": str(self.pictures),
            "largest difference": f"{self.largest_difference:.2g}",
            "largest logit": f"{self.largest_logit:.2g}",
            "same class %": f"{100 * self.class_agreement:.3f}",
            "same mask %": f"{100 * self.mask_agreement:.3f}",
        }


def compare_queries(
    exported: Callable[[Tensor], tuple[Tensor, ...]],
    original: Callable[[Tensor], tuple[Tensor, ...]],
    pictures: list[np.ndarray],
    size: tuple[int, int],
) -> QueryComparison:
    """Runs both on the first picture alone, and on all others together.

    Args:
        exported: images (N, 3, H, W) uint8 RGB -> what `DeployedQueries` gives.
        original: the same in eager PyTorch.
        pictures: (h, w, 3) uint8 RGB, which are resized.
        size: height and width to which they are.
    """
    differences, largest, same_class, same_mask = [], [], [], []
    for expected, got in _answers(exported, original, pictures, size):
        differences += [(a - b).abs().max() for a, b in zip(expected, got, strict=True)]
        largest += [part.abs().max() for part in expected]
        same_class.append((expected[0].argmax(2) == got[0].argmax(2)).flatten())
        same_mask.append(((expected[1] > 0) == (got[1] > 0)).flatten())
    return QueryComparison(
        size=size,
        pictures=len(pictures),
        largest_difference=float(max(differences)),
        largest_logit=float(max(largest)),
        class_agreement=float(torch.cat(same_class).double().mean()),
        mask_agreement=float(torch.cat(same_mask).double().mean()),
    )


def _answers(
    exported: Callable, original: Callable, pictures: list[np.ndarray], size: tuple[int, int]
) -> Iterator[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]:
    for batch in batches(pictures, size):
        with torch.no_grad():
            expected, got = original(batch), tuple(exported(batch))
        shapes = [tuple(part.shape) for part in got]
        if shapes != [tuple(part.shape) for part in expected]:
            raise RuntimeError(f"shapes {shapes}, expected those of the original")
        yield expected, got
