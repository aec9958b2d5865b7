"""The loss of mask classification networks (MaskFormer, arXiv 2107.06278; Mask2Former)."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.contracts import Queries, QueryOutputs
from segtrain.loss.matching import Costs, Targets, match, targets_of
from segtrain.loss.points import at_points, uncertain_points
from segtrain.loss.segmentation import mean_over_processes
from segtrain.segments import TrueSegments
from segtrain.values import Count, Fraction, NonNegative, Positive, Rule

MASKS = "masks"  # the only name of `weights`


class MaskClassificationLoss(nn.Module):
    """Cross-entropy of the queries' classes, and cross-entropy and Dice of their masks.

    Every segment is learned by the query that is cheapest for it, see `loss.matching`, the others
    learn that there is no object. Masks are compared at random points (Mask2Former, arXiv
    2112.01527, section 3.3), in float32. Each layer before the last is trained alike, with pairs of
    its own.

    Args:
        class_weight: factor of the classes' term, and of the same cost of a pair.
        mask_weight: factor of the masks' binary cross-entropy.
        dice_weight: factor of their Dice loss.
        no_object_weight: of queries without a segment in the classes' weighted mean.
        num_points: at which masks are compared.
        oversampling: times as many points are drawn for the masks' terms; the most uncertain stay.
        importance: share of the points that are chosen so; the others are anywhere.
    """

    task: ClassVar[str] = "masks"
    weighs_by_labels: ClassVar[bool] = True

    def __init__(
        self,
        class_weight: NonNegative,
        mask_weight: NonNegative,
        dice_weight: NonNegative,
        no_object_weight: Positive,
        num_points: Count,
        oversampling: Annotated[float, Rule("of at least 1", lambda number: number >= 1)],
        importance: Fraction,
    ) -> None:
        super().__init__()
        self.costs = Costs(class_weight, mask_weight, dice_weight)
        self.no_object_weight = no_object_weight
        self.num_points = num_points
        self.oversampling = oversampling
        self.importance = importance

    def forward(
        self,
        outputs: QueryOutputs,
        target: Tensor | Sequence[TrueSegments],
        weights: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Weighted terms by name, `aux` of all layers before the last; their sum is minimised.

        Sums over masks are divided by the number of segments, as an average over processes, and
        the classes' by the weights of all queries.

        Args:
            outputs: of a batch.
            target: see `segtrain.loss.matching.targets_of`.
            weights: the number of segments to divide by instead of the batch's; see `weights`.
        """
        logits = outputs["class_logits"]
        with torch.autocast(logits.device.type, enabled=False):
            targets = targets_of(target)
            divisors = self._divisors(targets, logits, weights)
            class_term, mask_term, dice_term = self._terms(outputs, targets, divisors)
            terms = {"class": class_term, "mask": mask_term, "dice": dice_term}
            if outputs["auxiliary"]:
                layers = [self._terms(q, targets, divisors).sum() for q in outputs["auxiliary"]]
                terms["aux"] = torch.stack(layers).sum()
        return terms

    def weights(
        self, outputs: QueryOutputs | None, target: Tensor | Sequence[TrueSegments]
    ) -> dict[str, Tensor]:
        """The number of the batch's segments; the labels alone tell."""
        targets = targets_of(target)
        return {MASKS: _count(sum(len(own.labels) for own in targets), targets[0].map.device)}

    def _divisors(
        self, targets: list[Targets], logits: Tensor, weights: dict[str, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Of the classes' term and of the masks', averaged over processes."""
        queries = logits.shape[0] * logits.shape[1]
        if weights is None:
            numbers = [len(own.labels) for own in targets]
            matched = sum(min(number, logits.shape[1]) for number in numbers)
            counts = torch.stack([_count(n, logits.device) for n in (sum(numbers), matched)])
            masks, matched = mean_over_processes(counts)
        else:
            masks = weights[MASKS]
            matched = masks.clamp(max=queries)
        # No mask, no term: what it is divided by is of no weight then.
        return matched + self.no_object_weight * (queries - matched), masks.clamp(min=1e-6)

    def _terms(
        self, queries: Queries, targets: list[Targets], divisors: tuple[Tensor, Tensor]
    ) -> Tensor:
        """(3,) weighted terms of one layer: of classes, masks and Dice."""
        logits = queries["class_logits"].float()
        points = torch.rand(len(logits), self.num_points, 2, device=logits.device)
        pairs = match(queries, targets, points, self.costs)
        found, wanted = self._masks_at_points(queries["mask_logits"], targets, pairs)
        entropy = F.binary_cross_entropy_with_logits(found, wanted, reduction="none").mean(1).sum()
        sums = self._class_sum(logits, targets, pairs), entropy, dice_sum(found, wanted)
        terms = zip(self.costs, sums, (divisors[0], divisors[1], divisors[1]), strict=True)
        return torch.stack([factor * total / divisor for factor, total, divisor in terms])

    def _class_sum(
        self, logits: Tensor, targets: list[Targets], pairs: list[tuple[Tensor, Tensor]]
    ) -> Tensor:
        """Cross-entropy of all queries' classes, those without a segment weighted."""
        no_object = logits.shape[2] - 1
        labels = torch.full(logits.shape[:2], no_object, device=logits.device)
        for own, target, (query, segment) in zip(labels, targets, pairs, strict=True):
            own[query] = target.labels[segment]
        weight = torch.ones(no_object + 1, device=logits.device)
        weight[no_object] = self.no_object_weight
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), weight, reduction="sum")

    def _masks_at_points(
        self, mask_logits: Tensor, targets: list[Targets], pairs: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Logits and truth (M, P) of all pairs' masks at points of their own."""
        images = torch.cat([query.new_full(query.shape, i) for i, (query, _) in enumerate(pairs)])
        chosen = mask_logits[images, torch.cat([query for query, _ in pairs])].float()
        points = uncertain_points(chosen, self.num_points, self.oversampling, self.importance)
        own = points.split([len(query) for query, _ in pairs])
        with torch.no_grad():
            wanted = [
                target.at_points(where, segment)
                for target, where, (_, segment) in zip(targets, own, pairs, strict=True)
            ]
        return at_points(chosen, points), torch.cat(wanted)


def dice_sum(logits: Tensor, wanted: Tensor) -> Tensor:
    """Dice losses of masks (M, P) at points, with 1 added above and below (V-Net, 1606.04797)."""
    found = logits.sigmoid()
    overlap = 2 * (found * wanted).sum(1) + 1
    return (1 - overlap / (found.sum(1) + wanted.sum(1) + 1)).sum()


def _count(number: int, device: torch.device) -> Tensor:
    return torch.tensor(float(number), device=device)
