"""Instances of whole images: one look, or several at other scales and mirrored, put together."""

from itertools import product
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou

from segtrain.contracts import Detections, Frames
from segtrain.inference.resizing import Resampling, Rounding, by_size, fitted, resized
from segtrain.suppression import suppress
from segtrain.values import Count, Counts, ProperFraction

SMALLEST_SIDE = 1e-2  # pixels, of a detection


class Frame(NamedTuple):
    """How the pixels of a view lie on those of the image."""

    scale: tuple[float, float]  # view over image, horizontally and vertically
    mirrored: bool
    width: int  # of the view

    def to_view(self, boxes: Tensor) -> Tensor:
        """Boxes (..., 4) of the image."""
        boxes = boxes * boxes.new_tensor([*self.scale, *self.scale])
        return self._mirror(boxes)

    def to_image(self, boxes: Tensor) -> Tensor:
        """Boxes (..., 4) of the view."""
        return self._mirror(boxes) / boxes.new_tensor([*self.scale, *self.scale])

    def _mirror(self, boxes: Tensor) -> Tensor:
        if not self.mirrored:
            return boxes
        left, top, right, bottom = boxes.unbind(-1)
        return torch.stack([self.width - right, top, self.width - left, bottom], -1)


class Candidates(NamedTuple):
    """Boxes of one image with their classes, before suppression."""

    boxes: Tensor  # (c, 4) in pixels of the image
    scores: Tensor  # (c,)
    labels: Tensor  # (c,)
    views: Tensor  # (c,) the view in which each was found


class Detect:
    """Mask R-CNN's test (arXiv 1703.06870, 3.1), with the usual ways to see more than once.

    Args:
        short_sides: the shorter side is resized to each of them, in pixels.
        long_side: the longer side is never longer; the scale gives way.
        flip: also looks at the mirrored image.
        min_score: classes less probable than this are no candidates.
        nms_iou: overlap from which the worse of two candidates of a class is dropped.
        max_detections: the best of an image that are kept.
        box_voting: overlap from which a detection's candidates have a say in its box, which is
            their mean, weighted by score (Gidaris and Komodakis 2015, arXiv 1505.01749, 5.3); or
            None.
        mask_voting: the same for their masks (Dai et al. 2016, arXiv 1512.04412, 4); None takes
            the mask at the final box, averaged over the views.
        rounding: of the sides that images are resized to.
        resampling: how they are, see `Resampling`.
        frames: of masks, see `segtrain.masks.paste`.
    """

    task: ClassVar[str] = "instance"

    def __init__(
        self,
        short_sides: Counts | None,
        long_side: Count | None,
        flip: bool,
        min_score: ProperFraction,
        nms_iou: ProperFraction,
        max_detections: Count,
        box_voting: ProperFraction | None,
        mask_voting: ProperFraction | None,
        rounding: Rounding = "down",  # older runs have none of these
        resampling: Resampling = "antialiased",
        frames: Frames = "whole_pixels",
    ) -> None:
        self.short_sides = short_sides
        self.long_side = long_side
        self.flip = flip
        self.min_score = min_score
        self.nms_iou = nms_iou
        self.max_detections = max_detections
        self.box_voting = box_voting
        self.mask_voting = mask_voting
        self.rounding = rounding
        self.resampling = resampling
        self.frames = frames

    @property
    def protocol(self) -> dict:
        """What results call this way of testing."""
        return {
            "inference": "detect",
            "scales": self.short_sides,
            "long_side": self.long_side,
            "flip": self.flip,
            "crf": False,
            "max_detections": self.max_detections,
            "box_voting": self.box_voting,
            "mask_voting": self.mask_voting,
            **({} if self.rounding == "down" else {"rounding": self.rounding}),
            **({} if self.resampling == "antialiased" else {"resampling": self.resampling}),
            **({} if self.frames == "whole_pixels" else {"frames": self.frames}),
        }

    def __call__(self, model: nn.Module, images: list[Tensor]) -> list[Detections]:
        """Images (3, H, W) uint8 RGB -> what each shows, in its own pixels."""
        return by_size(images, lambda equal: self._detect(model, equal))

    def _detect(self, model: nn.Module, images: list[Tensor]) -> list[Detections]:
        mirrorings = (False, True) if self.flip else (False,)
        frames, views = [], []
        for short_side, mirrored in product(self.short_sides, mirrorings):
            seen, frame = self._resize(images, short_side, mirrored)
            frames.append(frame)
            views.append(model.look(seen))
        found = [model.find_boxes(view) for view in views]
        candidates = [self._candidates(looks, frames) for looks in zip(*found, strict=True)]
        side = max(images[0].shape[1:])
        kept = [self._suppress(image, side) for image in candidates]
        final = [self._vote(*pair) for pair in zip(kept, candidates, strict=True)]
        if self.mask_voting is None:
            masks = mean_masks(model, views, frames, final)
        else:
            masks = self._vote_masks(model, views, frames, candidates, kept, final)
        return [
            {
                "boxes": kept.boxes,
                "scores": kept.scores,
                "labels": kept.labels,
                "masks": mask,
                "frames": self.frames,
            }
            for kept, mask in zip(final, masks, strict=True)
        ]

    def _resize(
        self, images: list[Tensor], short_side: int, mirrored: bool
    ) -> tuple[list[Tensor], Frame]:
        wanted = {"short": short_side, "long": self.long_side}
        size = fitted(images[0].shape[1:], wanted, rounding=self.rounding)
        batch, scale = resized(images, size, self.resampling)
        if mirrored:
            batch = batch.flip(3)
        return list(batch), Frame(scale, mirrored, batch.shape[3])

    def _candidates(
        self, looks: tuple[tuple[Tensor, Tensor], ...], frames: list[Frame]
    ) -> Candidates:
        """Those of all views of one image that are probable and not empty."""
        parts = []
        for number, ((boxes, scores), frame) in enumerate(zip(looks, frames, strict=True)):
            keep = scores > self.min_score
            keep &= (boxes[..., 2:] - boxes[..., :2] >= SMALLEST_SIDE).all(-1)
            labels = keep.nonzero()[:, 1]
            parts.append(
                Candidates(
                    frame.to_image(boxes[keep]),
                    scores[keep],
                    labels,
                    torch.full_like(labels, number),
                )
            )
        return Candidates(*(torch.cat(field) for field in zip(*parts, strict=True)))

    def _suppress(self, found: Candidates, side: int) -> Candidates:
        best = suppress(found.boxes, found.scores, found.labels, self.nms_iou, side)
        best = best[: self.max_detections]
        return Candidates(*(field[best] for field in found))

    def _vote(self, kept: Candidates, found: Candidates) -> Candidates:
        if self.box_voting is None:
            return kept
        votes = voters(kept, found, self.box_voting)
        # Not a matrix product, which autocast and TF32 would round to a pixel or more.
        return kept._replace(boxes=(votes[..., None] * found.boxes).sum(1))

    def _vote_masks(
        self,
        model: nn.Module,
        views: list,
        frames: list[Frame],
        candidates: list[Candidates],
        kept: list[Candidates],
        final: list[Candidates],
    ) -> list[Tensor]:
        results = []
        for number, (found, best) in enumerate(zip(candidates, kept, strict=True)):
            votes = voters(best, found, self.mask_voting)
            order, masks = [], []
            for view_number, (view, frame) in enumerate(zip(views, frames, strict=True)):
                own = torch.where((found.views == view_number) & votes.any(0))[0]
                asked = Candidates(*(field[own] for field in found))
                masks.append(masks_of_one(model, view, frame, asked, number, len(kept)))
                order.append(own)
            masks, order = torch.cat(masks), torch.cat(order)
            boxes, votes = found.boxes[order], votes[:, order]
            results.append(merge_masks(masks, boxes, votes, final[number].boxes))
        return results


def voters(kept: Candidates, found: Candidates, iou: float) -> Tensor:
    """(n, c) weight of each candidate in each detection; rows sum to 1.

    Candidates of the same class vote whose boxes overlap by `iou`, with their scores.
    """
    near = box_iou(kept.boxes, found.boxes) >= iou
    near &= kept.labels[:, None] == found.labels
    weights = near * found.scores
    return weights / weights.sum(1, keepdim=True)


def mean_masks(
    model: nn.Module, views: list, frames: list[Frame], kept: list[Candidates]
) -> list[Tensor]:
    """(n, M, M) probabilities of each image's detections, averaged over the views."""
    labels = [image.labels for image in kept]
    total = None
    for view, frame in zip(views, frames, strict=True):
        masks = model.find_masks(view, [frame.to_view(image.boxes) for image in kept], labels)
        if frame.mirrored:
            masks = [mask.flip(2) for mask in masks]
        total = masks if total is None else [a + b for a, b in zip(total, masks, strict=True)]
    return [mask / len(views) for mask in total]


def masks_of_one(
    model: nn.Module, view: object, frame: Frame, found: Candidates, image: int, num_images: int
) -> Tensor:
    """(c, M, M) probabilities of candidates of one image among several, found in one view."""
    boxes = [found.boxes[:0]] * num_images
    labels = [found.labels[:0]] * num_images
    boxes[image], labels[image] = frame.to_view(found.boxes), found.labels
    masks = model.find_masks(view, boxes, labels)[image]
    return masks.flip(2) if frame.mirrored else masks


def merge_masks(masks: Tensor, boxes: Tensor, votes: Tensor, frames: Tensor) -> Tensor:
    """Means of masks that lie in other boxes, in new boxes.

    Args:
        masks: (c, M, M) probabilities, stretched over their boxes; zero around them.
        boxes: (c, 4).
        votes: (n, c) weights; rows sum to 1.
        frames: (n, 4) the new boxes.

    Returns:
        (n, M, M).
    """
    size = masks.shape[-1]
    result = masks.new_zeros(len(frames), size, size)
    into, origin = votes.nonzero(as_tuple=True)
    cells = (torch.arange(size, device=masks.device) + 0.5) / size
    side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6)
    axes = []
    for axis in (0, 1):  # x, y: the new cells' centres within the old boxes, in -1..1
        length = (frames[:, 2 + axis] - frames[:, axis])[into, None]
        place = frames[into, axis, None] + cells * length - boxes[origin, axis, None]
        axes.append(2 * place / side[origin, axis, None] - 1)
    x, y = axes
    grid = torch.stack([x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], -1)
    moved = F.grid_sample(masks[origin, None], grid, mode="bilinear", align_corners=False)
    return result.index_add(0, into, moved[:, 0] * votes[into, origin, None, None])
