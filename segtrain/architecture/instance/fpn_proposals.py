"""Segment proposals on a feature pyramid (Lin et al., CVPR 2017, arXiv 1612.03144, section 6).

What the paper leaves out is that of DeepMask (Pinheiro et al. 2015, arXiv 1506.06204).

A place is one window of one image: a cell of a level, seen by one of the heads. All T scales (a
level and a head) of all cells are numbered together: level by level, head by head, row by row.
N images, S places, Q of them positive, M cells a side of a mask.
"""

from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.architecture.instance.boxes import NEGATIVE, sample
from segtrain.architecture.instance.fpn import (
    FeaturePyramid,
    batch_of,
    require_pyramid,
    with_coarsest,
)
from segtrain.architecture.instance.roi import mask_targets
from segtrain.contracts import ProposalOutputs, TrainInstances
from segtrain.errors import UserError
from segtrain.values import Count, Counts, Fraction, Positive, Positives

LEVELS = 5  # P2 to P6


class Grid(NamedTuple):
    """Where the places of an image are, one entry a scale; pairs are horizontal, vertical."""

    starts: Tensor  # (T,) int64, first place of each scale
    cells: Tensor  # (T, 2) int64
    strides: Tensor  # (T, 1) float32, pixels from one cell to the next
    origins: Tensor  # (T, 1) float32, the first cell's centre in pixels
    sides: Tensor  # (T,) float32, longer side of the objects that belong to the scale, in pixels


class Spot(NamedTuple):
    """Where given places are."""

    scale: Tensor  # (S,) int64
    cell: Tensor  # (S, 2) int64, column and row
    centre: Tensor  # (S, 2) float32, x and y in pixels


class FPNProposals(nn.Module):
    """Backbone, pyramid, and heads that slide over it: a score and a mask for every window.

    Args:
        num_classes: unused, as proposals know no classes; every architecture is told.
        backbone: gives C2..C5.
        channels: d, of the pyramid.
        heads: kernel sizes. Head i of n is for objects 2^(i / n) times as large as the first's: of
            two heads, one has the octaves, the other the half octaves.
        width: channels of a head.
        mask_size: M.
        scales: longer sides of the objects that P2..P6 and the first head are for, in pixels.
        padding: side of a window over that of its scale's objects.
        samples: places an image that train.
        positive_fraction: at most, of the samples.
    """

    task: ClassVar[str] = "proposal"

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Module,
        channels: Count,
        heads: Counts,
        width: Count,
        mask_size: Count,
        scales: Positives,
        padding: Positive,
        samples: Count,
        positive_fraction: Fraction,
    ) -> None:
        super().__init__()
        if len(scales) != LEVELS:
            raise UserError(f"architecture.scales={scales}: expected {LEVELS}, of P2 to P6")
        require_pyramid(backbone.strides)
        self.backbone = backbone
        self.neck = FeaturePyramid(backbone.channels, channels, norm="none")
        self.heads = nn.ModuleList(
            ProposalHead(channels, kernel_size, width, mask_size) for kernel_size in heads
        )
        self.sides = [
            scale * 2 ** (number / len(heads)) for scale in scales for number in range(len(heads))
        ]
        self.padding = padding
        self.samples = samples
        self.positive_fraction = positive_fraction

    def forward(self, images: list[Tensor], targets: list[TrainInstances]) -> ProposalOutputs:
        """Scores and masks of sampled places of images (3, H, W) of any sizes, in 0..255.

        Heads are computed at the samples only, the positives of all images first.
        """
        maps, grid = self._look(images)
        positives, negatives, wanted = [], [], []
        for target in targets:
            matched = assign(target["boxes"], grid)
            positive, negative = sample(matched, self.samples, self.positive_fraction)
            windows = windows_of(locate(positive, grid), grid, self.padding)
            # RoIAlign has pixel centres at whole numbers, boxes have pixel edges there.
            wanted.append(mask_targets(target, matched[positive], windows - 0.5, self._mask_size))
            positives.append(positive)
            negatives.append(negative)
        places = [*positives, *negatives]
        image = torch.cat([torch.full_like(p, i % len(images)) for i, p in enumerate(places)])
        count = sum(len(positive) for positive in positives)
        scores, masks = self._read(maps, image, locate(torch.cat(places), grid), count)
        target = torch.zeros_like(scores)
        target[:count] = 1
        return {
            "objectness": scores,
            "objectness_target": target,
            "mask_logits": masks,
            "mask_target": torch.cat(wanted),
        }

    def propose(self, images: list[Tensor], count: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The windows with the best scores, of all places, without suppression (appendix A).

        Args:
            images: (3, H, W) of any sizes, in 0..255.
            count: proposals an image; fewer where an image has fewer places.

        Returns:
            windows (n, 4) in pixels of the image, which may reach beyond it, probabilities (n,) and
            masks (n, M, M) of probabilities of each image, best first.
        """
        maps, grid = self._look(images)
        scores = torch.cat([head.score(m).flatten(1) for m in maps for head in self.heads], 1)
        centres = locate(torch.arange(scores.shape[1], device=scores.device), grid).centre
        best, places = [], []
        for image, own in zip(images, scores, strict=True):
            inside = torch.where((centres < centres.new_tensor(image.shape[:0:-1])).all(1))[0]
            values, chosen = own[inside].topk(min(count, len(inside)))
            best.append(values.sigmoid())
            places.append(inside[chosen])
        numbers = torch.cat([torch.full_like(p, i) for i, p in enumerate(places)])
        spot = locate(torch.cat(places), grid)
        _, masks = self._read(maps, numbers, spot, len(numbers))
        lengths = [len(p) for p in places]
        windows = windows_of(spot, grid, self.padding).split(lengths)
        return list(zip(windows, best, masks.sigmoid().split(lengths), strict=True))

    @property
    def _mask_size(self) -> int:
        return self.heads[0].mask_size

    def _look(self, images: list[Tensor]) -> tuple[list[Tensor], Grid]:
        """P2..P6 (N, C, h, w), and the places on them."""
        batch = batch_of(images, self.backbone.normalize.mean)
        maps = with_coarsest(self.neck(self.backbone(batch)))
        cells = torch.tensor([m.shape[:1:-1] for m in maps for _ in self.heads])
        ends = cells.prod(1).cumsum(0)
        strides = torch.tensor(self.backbone.strides, dtype=torch.float32)
        origins = torch.cat([strides, strides[-1:]]) / 2  # P6 is every second cell of P5
        strides = torch.cat([strides, 2 * strides[-1:]])
        grid = Grid(
            ends - cells.prod(1),
            cells,
            strides.repeat_interleave(len(self.heads))[:, None],
            origins.repeat_interleave(len(self.heads))[:, None],
            torch.tensor(self.sides),
        )
        return maps, Grid(*(part.to(batch.device) for part in grid))

    def _read(
        self, maps: list[Tensor], image: Tensor, spot: Spot, num_masks: int
    ) -> tuple[Tensor, Tensor]:
        """Score logits (S,) of places, and mask logits (num_masks, M, M) of the first, float32.

        Args:
            maps: (N, C, h, w) each, P2..P6.
            image: (S,) numbers of the images.
            spot: the places in them.
            num_masks: so many.
        """
        scores, masks, order = [], [], []
        for scale in range(len(self.sides)):
            level, number = divmod(scale, len(self.heads))
            own = torch.where(spot.scale == scale)[0]
            head, cell = self.heads[number], spot.cell[own]
            hidden = head.hidden_at(maps[level], image[own], cell[:, 1], cell[:, 0])
            scores.append(head.score_of(hidden))
            masks.append(head.mask_of(hidden[own < num_masks]))
            order.append(own)
        order = torch.cat(order)
        of_masks = order[order < num_masks].argsort()
        return torch.cat(scores)[order.argsort()], torch.cat(masks)[of_masks]


class ProposalHead(nn.Module):
    """A convolution, ReLU, and two siblings: a mask and a score. The same for all levels.

    Args:
        in_channels: of the maps.
        kernel_size: of the convolution; odd.
        width: its channels.
        mask_size: M.
    """

    def __init__(self, in_channels: int, kernel_size: int, width: int, mask_size: int) -> None:
        super().__init__()
        self.mask_size = mask_size
        self.conv = nn.Conv2d(in_channels, width, kernel_size, padding=kernel_size // 2)
        self.masks = nn.Conv2d(width, mask_size**2, 1)
        self.scores = nn.Conv2d(width, 1, 1)
        for layer in (self.conv, self.masks, self.scores):  # as Faster R-CNN's new layers (3.1.3)
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def score(self, x: Tensor) -> Tensor:
        """Logits of all cells: (N, C, h, w) -> (N, h, w), float32."""
        return self.scores(self.conv(x).relu_())[:, 0].float()

    def hidden_at(self, x: Tensor, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """(S, width) what convolution and ReLU make of single cells (S,) of maps (N, C, h, w)."""
        side = self.conv.kernel_size[0]
        steps = torch.arange(side, device=x.device)
        rows = row[:, None, None] + steps[:, None]
        columns = column[:, None, None] + steps
        padded = F.pad(x, [side // 2] * 4)
        patches = padded[image[:, None, None], :, rows, columns]  # (S, side, side, C)
        weight = self.conv.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(patches.flatten(1), weight, self.conv.bias).relu()

    def score_of(self, hidden: Tensor) -> Tensor:
        """Logits (S,) of hidden (S, width), float32."""
        return self.scores(hidden[:, :, None, None]).flatten().float()

    def mask_of(self, hidden: Tensor) -> Tensor:
        """Logits (S, M, M) of hidden (S, width), float32."""
        masks = self.masks(hidden[:, :, None, None]).float()
        return masks.view(-1, self.mask_size, self.mask_size)


def locate(places: Tensor, grid: Grid) -> Spot:
    """Where places (S,) are."""
    scale = torch.searchsorted(grid.starts, places, right=True) - 1
    within, width = places - grid.starts[scale], grid.cells[scale, 0]
    cell = torch.stack([within % width, within // width], 1)
    return Spot(scale, cell, cell * grid.strides[scale] + grid.origins[scale])


def windows_of(spot: Spot, grid: Grid, padding: float) -> Tensor:
    """(S, 4) what the masks of places show: squares x1 y1 x2 y2 in pixels, `padding` sides long."""
    half = (grid.sides[spot.scale] * padding / 2)[:, None]
    return torch.cat([spot.centre - half, spot.centre + half], 1)


def assign(boxes: Tensor, grid: Grid) -> Tensor:
    """The object of which each place is an example (appendix A).

    An object belongs to the scale whose side is nearest to its own, the longer one, in log space.
    It claims the places there whose centres are at most one cell from its own, along either axis;
    where several objects claim a place, the nearest has it.

    Args:
        boxes: (n, 4) of one image's objects.
        grid: of the batch.

    Returns:
        (places,) int64: an object's number, or NEGATIVE.
    """
    side = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    scale = (side.log2()[:, None] - grid.sides.log2()).abs().argmin(1)
    centre = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None]
    stride, cells, origin = (part[scale, None] for part in (grid.strides, grid.cells, grid.origins))
    steps = torch.arange(3, device=boxes.device)[:, None]
    near = ((centre - origin) / stride - 1).ceil().long() + steps  # (n, 3, 2) columns and rows
    away = (near * stride + origin - centre).abs()
    claimed = (away <= stride) & (near >= 0) & (near < cells)
    claimed = claimed[:, :, None, 1] & claimed[:, None, :, 0]  # (n, 3, 3)
    rows = near[:, :, None, 1] * cells[:, :, None, 0]
    places = (grid.starts[scale, None, None] + rows + near[:, None, :, 0])[claimed]
    distance = away.square()
    distance = (distance[:, :, None, 1] + distance[:, None, :, 0])[claimed]
    return nearest_claims(places, distance, torch.where(claimed)[0], int(grid.cells.prod(1).sum()))


def nearest_claims(places: Tensor, distance: Tensor, objects: Tensor, total: int) -> Tensor:
    """(total,) the object with the nearest of the claims (c,) to each place, or NEGATIVE.

    Of equally near objects, it is the first.
    """
    nearest = distance.new_full((total,), torch.inf)
    nearest = nearest.scatter_reduce(0, places, distance, "amin")
    wins = distance == nearest[places]
    last = torch.iinfo(objects.dtype).max
    matched = objects.new_full((total,), last)
    matched = matched.scatter_reduce(0, places[wins], objects[wins], "amin")
    return matched.masked_fill(matched == last, NEGATIVE)
