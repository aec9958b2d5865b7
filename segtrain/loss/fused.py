"""Softmax cross-entropy of resized scores in two Triton kernels: no full-resolution scores at all.

N images, K classes, H x W pixels, h x w scores. Beside the scores and their gradient, only one
number a pixel is in memory (the log of the sum of exponentials).

The backward pass gathers: every score collects what the pixels around it send back, in a fixed
order, and works their probabilities out anew. So nothing is added up by atomic operations, and two
runs give the same gradients to the last bit.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from segtrain.errors import UserError

PIXELS = 128  # of a row, in a program of the forward pass
CELLS = 32  # of a row of scores, in a program of the backward pass
CLASSES = 16  # at once


class Axis(NamedTuple):
    """How a length of scores is stretched to a length of pixels.

    Args:
        offset: of the centres: 0 with corners aligned, else 0.5.
        scale: from pixels to scores.
        inverse: from scores to pixels, 0 where all pixels are at the first score.
        reach: at most so many pixels get a share of one score.
    """

    offset: float
    scale: float
    inverse: float
    reach: int


def axis(small: int, size: int, align_corners: bool) -> Axis:
    """As `F.interpolate` places pixels."""
    offset = 0.0 if align_corners else 0.5
    scale = (small - 1) / max(size - 1, 1) if align_corners else small / size
    if scale == 0:
        return Axis(offset, 0.0, 0.0, size)
    reach = size if small == 1 else min(size, math.ceil(2 / scale) + 4)
    return Axis(offset, scale, 1 / scale, reach)


def cross_entropy(scores: Tensor, target: Tensor, align_corners: bool, ignore_index: int) -> Tensor:
    """Scores (N, K, h, w) and labels (N, H, W) -> (N, H, W) float32, 0 where a pixel is void.

    Raises:
        UserError: they are not on a GPU.
    """
    if not scores.is_cuda and not triton.knobs.runtime.interpret:
        raise UserError(f"loss.form=fused: needs a GPU, not a {scores.device}; use loss.form=null")
    return FusedCrossEntropy.apply(scores, target, align_corners, ignore_index)


class FusedCrossEntropy(torch.autograd.Function):
    """The cross-entropy of every pixel."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        scores: Tensor,
        target: Tensor,
        align_corners: bool,
        ignore_index: int,
    ) -> Tensor:
        """(N, H, W) float32, 0 where a pixel is void.

        Args:
            ctx: of autograd.
            scores: (N, K, h, w) of any floating type.
            target: (N, H, W) train ids.
            align_corners: how scores are resized to the labels.
            ignore_index: void.
        """
        target = target.contiguous()
        images, height, width = target.shape
        rows = axis(scores.shape[2], height, align_corners)
        columns = axis(scores.shape[3], width, align_corners)
        losses, sums = torch.empty(2, *target.shape, device=scores.device).unbind()
        grid = images * height, triton.cdiv(width, PIXELS)
        forward_kernel[grid](
            scores, target, losses, sums, *scores.stride(), *scores.shape[1:], height, width,
            rows.offset, rows.scale, columns.scale, ignore_index,
            PIXELS=PIXELS, CLASSES=CLASSES,
        )  # fmt: skip
        ctx.save_for_backward(scores, target, sums)
        ctx.axes, ctx.ignore_index = (rows, columns), ignore_index
        return losses

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, weights: Tensor
    ) -> tuple[Tensor, None, None, None]:
        scores, target, sums = ctx.saved_tensors
        rows, columns = ctx.axes
        gradient = torch.empty_like(scores)
        images, classes, height, width = scores.shape
        grid = (
            images * height,
            triton.cdiv(width, CELLS),
            triton.cdiv(classes, CLASSES),
        )
        backward_kernel[grid](
            scores, target, sums, weights.contiguous(), gradient,
            *scores.stride(), *gradient.stride(), *scores.shape[1:], *target.shape[1:],
            rows.offset, rows.scale, rows.inverse, rows.reach,
            columns.scale, columns.inverse, columns.reach, ctx.ignore_index,
            CELLS=CELLS, CLASSES=CLASSES,
        )  # fmt: skip
        return gradient, None, None, None


@triton.jit
def place(pixel, offset, scale, cells):
    """Position of a pixel among so many scores: the score before it, the one after, the share."""
    position = tl.maximum((pixel + offset) * scale - offset, 0.0)
    position = tl.minimum(position, cells - 1.0)
    before = position.to(tl.int32)
    return position, before, tl.minimum(before + 1, cells - 1), position - before


@triton.jit
def forward_kernel(
    scores, target, losses, sums,
    image_stride, class_stride, row_stride, column_stride,
    classes, height, width, full_height, full_width,
    offset, row_scale, column_scale, ignore_index,
    PIXELS: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """Some pixels of one row: the greatest score and the sum are kept up to date class by class."""
    line = tl.program_id(0)
    image, y = line // full_height, line % full_height
    x = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    is_inside = x < full_width
    _, above, below, down = place(y.to(tl.float32), offset, row_scale, height)
    _, left, right, along = place(x.to(tl.float32), offset, column_scale, width)
    first = scores + image.to(tl.int64) * image_stride
    at = line.to(tl.int64) * full_width + x
    label = tl.load(target + at, mask=is_inside, other=ignore_index).to(tl.int32)

    greatest = tl.full((PIXELS,), float("-inf"), tl.float32)
    total = tl.zeros((PIXELS,), tl.float32)
    own = tl.zeros((PIXELS,), tl.float32)
    for start in range(0, classes, CLASSES):
        k = start + tl.arange(0, CLASSES)
        is_class = (k < classes)[:, None] & is_inside[None, :]
        of_class = first + k.to(tl.int64)[:, None] * class_stride
        top, bottom = of_class + above * row_stride, of_class + below * row_stride
        west, east = left[None, :] * column_stride, right[None, :] * column_stride
        a = tl.load(top + west, mask=is_class, other=0.0).to(tl.float32)
        b = tl.load(top + east, mask=is_class, other=0.0).to(tl.float32)
        c = tl.load(bottom + west, mask=is_class, other=0.0).to(tl.float32)
        d = tl.load(bottom + east, mask=is_class, other=0.0).to(tl.float32)
        a += (c - a) * down
        b += (d - b) * down
        score = tl.where(is_class, a + (b - a) * along[None, :], float("-inf"))
        own += tl.sum(tl.where(k[:, None] == label[None, :], score, 0.0), 0)
        # Pixels outside have no score at all; with 0 they have no infinite difference.
        new = tl.where(is_inside, tl.maximum(greatest, tl.max(score, 0)), 0.0)
        total = total * tl.exp(greatest - new) + tl.sum(tl.exp(score - new[None, :]), 0)
        greatest = new
    log_sum = greatest + tl.log(total)
    tl.store(sums + at, log_sum, mask=is_inside)
    tl.store(losses + at, tl.where(label == ignore_index, 0.0, log_sum - own), mask=is_inside)


@triton.jit
def backward_kernel(
    scores, target, sums, weights, gradient,
    image_stride, class_stride, row_stride, column_stride,
    image_step, class_step, row_step, column_step,
    classes, height, width, full_height, full_width,
    offset, row_scale, row_inverse, row_reach,
    column_scale, column_inverse, column_reach, ignore_index,
    CELLS: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """Some scores of one row, of some classes: probability less label, over the pixels around."""
    line = tl.program_id(0)
    image, i = line // height, line % height
    j = tl.program_id(1) * CELLS + tl.arange(0, CELLS)
    k = tl.program_id(2) * CLASSES + tl.arange(0, CLASSES)
    is_cell = (k < classes)[:, None] & (j < width)[None, :]
    first = scores + image.to(tl.int64) * image_stride + k.to(tl.int64)[:, None] * class_stride
    west = tl.maximum(j - 1, 0)[None, :] * column_stride
    here = j[None, :] * column_stride
    east = tl.minimum(j + 1, width - 1)[None, :] * column_stride
    y_first = tl.maximum((i - 1 + offset) * row_inverse - offset - 1, 0.0).to(tl.int32)
    x_first = tl.maximum((j - 1 + offset) * column_inverse - offset - 1, 0.0).to(tl.int32)

    found = tl.zeros((CLASSES, CELLS), tl.float32)
    for dy in range(row_reach):
        y = y_first + dy
        at_row, above, below, down = place(y.to(tl.float32), offset, row_scale, height)
        share_of_row = tl.where(y < full_height, 1 - tl.abs(at_row - i), 0.0)
        if share_of_row > 0:
            top, bottom = first + above * row_stride, first + below * row_stride
            a = tl.load(top + west, mask=is_cell, other=0.0).to(tl.float32)
            b = tl.load(top + here, mask=is_cell, other=0.0).to(tl.float32)
            c = tl.load(top + east, mask=is_cell, other=0.0).to(tl.float32)
            a += (tl.load(bottom + west, mask=is_cell, other=0.0).to(tl.float32) - a) * down
            b += (tl.load(bottom + here, mask=is_cell, other=0.0).to(tl.float32) - b) * down
            c += (tl.load(bottom + east, mask=is_cell, other=0.0).to(tl.float32) - c) * down
            row = (image.to(tl.int64) * full_height + y) * full_width
            for dx in range(column_reach):
                x = x_first + dx
                at_column, _, _, _ = place(x.to(tl.float32), offset, column_scale, width)
                away = at_column - j
                share = share_of_row * tl.maximum(1 - tl.abs(away), 0.0)
                is_near = (x < full_width) & (share > 0)
                label = tl.load(target + row + x, mask=is_near, other=ignore_index).to(tl.int32)
                is_valid = is_near & (label != ignore_index)
                weight = share * tl.load(weights + row + x, mask=is_valid, other=0.0)
                log_sum = tl.load(sums + row + x, mask=is_valid, other=0.0)
                before, after = tl.maximum(-away, 0.0), tl.maximum(away, 0.0)
                score = b + (a - b) * before[None, :] + (c - b) * after[None, :]
                # Far pixels would be extrapolated to scores beyond their sum: never above one.
                probability = tl.exp(tl.minimum(score - log_sum[None, :], 0.0))
                is_own = k[:, None] == label[None, :]
                found += tl.where(is_own, probability - 1, probability) * weight[None, :]
    to = gradient + image.to(tl.int64) * image_step + k.to(tl.int64)[:, None] * class_step
    to += i * row_step + j[None, :] * column_step
    tl.store(to, found.to(gradient.dtype.element_ty), mask=is_cell)
