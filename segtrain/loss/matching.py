"""Which query is to find which segment of an image (DETR, arXiv 2005.12872, section 3.1)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from segtrain.contracts import Queries
from segtrain.label_set import VOID
from segtrain.sampling import bilinear, neighbours
from segtrain.segments import CROWD, TrueSegments, keys

WORST = 1e10  # cost of a pair that has none, such as of a query that is not finite


class Targets(NamedTuple):
    """The n segments of one image that queries are to find; without masks where they are disjoint.

    Attributes:
        labels: (n,) int64 train ids.
        map: (H, W), what tells at every pixel of which segment it is; or (n, H, W) bool masks.
        keys: (n,) what stands in the map where each segment is; None with masks.
    """

    labels: Tensor
    map: Tensor
    keys: Tensor | None

    def at_points(self, points: Tensor, chosen: Tensor) -> Tensor:
        """Masks of some of the segments at points, (m, P) of 0..1.

        Args:
            points: (m, P, 2), those of each; or (1, P, 2).
            chosen: (m,) which segments.
        """
        index, weight = neighbours(points, self.map.shape[-2:])
        if self.keys is None:
            first = chosen * self.map.shape[-2:].numel()
            cells = self.map.flatten()[first.view(-1, 1, 1) + index]
        else:
            cells = self.map.flatten()[index] == self.keys[chosen].view(-1, 1, 1)
        return (cells * weight).sum(-1)


def targets_of(target: Tensor | Sequence[TrueSegments]) -> list[Targets]:
    """The segments of every image of a batch; void and crowds are of none.

    Args:
        target: labels (N, H, W) uint8, whose segments are the classes; or (N, H, W, 3) as packed by
            `segtrain.segments`; or the segments themselves, which may overlap.
    """
    if not isinstance(target, Tensor):
        return [
            Targets(found.labels[~found.crowd], found.masks[~found.crowd], None) for found in target
        ]
    result = []
    for own in keys(target if target.ndim == 4 else target.unsqueeze(-1)):
        found = own.unique()
        found = found[(found < VOID << 16) & (found & CROWD != CROWD)]
        result.append(Targets((found >> 16).long(), own, found))
    return result


class Costs(NamedTuple):
    """What a pair of a query and a segment costs: factors of three terms."""

    class_: float  # of the class's probability
    mask: float  # of the mean binary cross-entropy
    dice: float


@torch.no_grad()
def match(
    queries: Queries, targets: Sequence[Targets], points: Tensor, costs: Costs
) -> list[tuple[Tensor, Tensor]]:
    """The cheapest pairs of queries and segments, each in one pair at most.

    Args:
        queries: of N images.
        targets: of each image.
        points: (N, P, 2) at which the masks of an image are compared.
        costs: factors of the terms.

    Returns:
        For each image the indices (m,) of queries, in ascending order, and of their segments.
    """
    tables = [
        _table(logits.float(), masks.float(), own, where, costs)
        for logits, masks, own, where in zip(
            queries["class_logits"], queries["mask_logits"], targets, points, strict=True
        )
    ]
    device = points.device
    sizes = [table.numel() for table in tables]
    flat = torch.cat([table.flatten() for table in tables]).cpu()  # the device is waited for once
    pairs = []
    for table, costs_of_pairs in zip(tables, flat.split(sizes), strict=True):
        found = linear_sum_assignment(costs_of_pairs.view(table.shape))
        pairs.append(tuple(torch.from_numpy(index).to(device) for index in found))
    return pairs


def _table(
    class_logits: Tensor, mask_logits: Tensor, targets: Targets, points: Tensor, costs: Costs
) -> Tensor:
    """Costs (Q, n) of one image's pairs."""
    found = bilinear(mask_logits.unsqueeze(0), points.unsqueeze(0))[0]  # (Q, P)
    everyone = torch.arange(len(targets.labels), device=points.device)
    wanted = targets.at_points(points.unsqueeze(0), everyone)  # (n, P)
    probability = class_logits.softmax(-1)[:, targets.labels]
    # -log sigmoid(x) = softplus(x) - x: one product serves the pixels inside and those outside.
    entropy = (F.softplus(found).sum(1, keepdim=True) - found @ wanted.T) / len(points)
    masks = found.sigmoid()
    both = masks.sum(1, keepdim=True) + wanted.sum(1)
    dice = 1 - (2 * masks @ wanted.T + 1) / (both + 1)
    total = costs.mask * entropy + costs.dice * dice - costs.class_ * probability
    return total.nan_to_num(WORST, WORST, -WORST)
