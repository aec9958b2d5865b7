"""Several networks as one: their probabilities are averaged."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from segtrain.inference.semantic import Refinement, SemanticInference


class Ensemble(nn.Module):
    """Networks side by side, called by what the first is called.

    Args:
        members: at least one.
    """

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def backbone(self) -> nn.Module:
        """The first member's."""
        return self.members[0].backbone


class EnsembleInference:
    """Mean of the probabilities of an `Ensemble`, as of DeconvNet with FCN-8s (section 5.1).

    Args:
        inferences: how each member is tested; a CRF of theirs would come before the mean.
        crf: applied to the mean, or None.
    """

    task: ClassVar[str] = "semantic"
    gives_probabilities: ClassVar[bool] = True

    def __init__(self, inferences: list[SemanticInference], crf: Refinement | None) -> None:
        self.inferences = inferences
        self.crf = crf

    @property
    def protocol(self) -> dict:
        """What results call this way of testing: the first's, and how many there are."""
        shown = self.inferences[0].protocol | {"crf": self.crf is not None}
        settings = {} if self.crf is None else self.crf.protocol
        return {**shown, **settings, "ensemble": len(self.inferences)}

    def __call__(self, model: Ensemble, images: list[Tensor]) -> list[Tensor]:
        """Images (3, H, W) uint8 RGB -> probabilities (K, H, W), each in its image's size."""
        totals = [torch.zeros(())] * len(images)
        for member, inference in zip(model.members, self.inferences, strict=True):
            scores = inference(member, images)
            if not inference.gives_probabilities:
                scores = [score.softmax(0) for score in scores]
            totals = [total.to(score) + score for total, score in zip(totals, scores, strict=True)]
        means = [total / len(self.inferences) for total in totals]
        if self.crf is None:
            return means
        return [self.crf(image, mean) for image, mean in zip(images, means, strict=True)]
