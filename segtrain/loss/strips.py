"""A loss at full resolution, strip by strip, so that full-resolution scores are never all there.

N images, K classes, H x W pixels, h x w scores.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

STRIP_BYTES = {"cpu": 2**23, "cuda": 2**28}  # of a strip's scores: the cache; few kernel launches

Term = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


class SumOverStrips(torch.autograd.Function):
    """A loss that is a sum over pixels, with its gradient worked out strip by strip at once.

    Only the gradient of the small scores is kept until the backward pass, so that the memory of
    full-resolution scores, probabilities and gradients is one strip's instead of the batch's.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        scores: Tensor,
        target: Tensor,
        weight: Tensor | None,
        align_corners: bool,
        term: Term,
    ) -> tuple[Tensor, Tensor]:
        """Sum of the loss and of the pixels' weights.

        Args:
            ctx: of autograd.
            scores: (N, K, h, w).
            target: (N, H, W) train ids.
            weight: (N, H, W) of the pixels, handed on to `term`; or None.
            align_corners: how scores are resized to the labels.
            term: scores (1, K, r, W) float32, target and weight (1, r, W) -> both sums of a strip.
        """
        gradient = torch.zeros_like(scores, dtype=torch.float32)
        # Added up in place: small tensors that stay would lie between the large ones that go, and
        # the C library's heap would grow with every strip.
        sums = torch.zeros(2, dtype=torch.float64, device=scores.device)
        for index in range(scores.shape[0]):
            with torch.enable_grad():
                part = scores[index : index + 1].detach().float().requires_grad_()
            for start, stop in strips(scores.shape[1], target):
                place = (slice(index, index + 1), slice(start, stop))
                with torch.enable_grad():
                    rows = resized_rows(part, target.shape[1:], align_corners, start, stop)
                    own = None if weight is None else weight[place]
                    total, share = term(rows, target[place], own)
                (found,) = torch.autograd.grad(total, part)
                gradient[index] += found[0]
                sums[0] += total.detach()
                sums[1] += share.detach()
        ctx.save_for_backward(gradient)  # a sum over pixels, which float16 may not hold
        ctx.dtype = scores.dtype
        total, share = sums[0].float(), sums[1].float()
        ctx.mark_non_differentiable(share)
        return total, share

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, total: Tensor, _: Tensor
    ) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * total).to(ctx.dtype), None, None, None, None


def pixel_losses(
    scores: Tensor,
    target: Tensor,
    align_corners: bool,
    losses: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """(N, H, W) of `losses`: (1, K, r, W), (1, r, W) -> (1, r, W), without a gradient."""
    result = torch.empty(target.shape, device=scores.device)
    with torch.no_grad():
        for index in range(scores.shape[0]):
            part = scores[index : index + 1].float()
            for start, stop in strips(scores.shape[1], target):
                rows = resized_rows(part, target.shape[1:], align_corners, start, stop)
                place = (slice(index, index + 1), slice(start, stop))
                result[place] = losses(rows, target[place])
    return result


def strips(classes: int, target: Tensor) -> Iterator[tuple[int, int]]:
    """First row and the one after the last of each strip of labels (N, H, W)."""
    height, width = target.shape[1:]
    budget = STRIP_BYTES.get(target.device.type, STRIP_BYTES["cuda"])
    step = max(1, budget // (4 * classes * width))
    for start in range(0, height, step):
        yield start, min(start + step, height)


def resized_rows(
    scores: Tensor, size: tuple[int, int], align_corners: bool, start: int, stop: int
) -> Tensor:
    """Rows start..stop of scores (N, K, h, w), float32, resized bilinearly to `size`."""
    height = scores.shape[2]
    if height == size[0]:
        rows = scores[:, :, start:stop]
    else:
        position = torch.arange(start, stop, device=scores.device, dtype=torch.float32)
        if align_corners:
            position = position * ((height - 1) / max(size[0] - 1, 1))
        else:
            position = ((position + 0.5) * (height / size[0]) - 0.5).clamp(min=0)
        above = position.long().clamp(max=height - 1)
        below = (above + 1).clamp(max=height - 1)
        share = (position - above)[:, None]
        rows = torch.lerp(scores[:, :, above], scores[:, :, below], share)
    if scores.shape[3] == size[1]:
        return rows
    return F.interpolate(
        rows, (stop - start, size[1]), mode="bilinear", align_corners=align_corners
    )
