"""The loss of a semantic network: pixel, region and presence terms, weighted and summed."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Annotated, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.contracts import Outputs, resize
from segtrain.errors import UserError
from segtrain.loss.boundary import boundary_loss, labels_at_boundaries
from segtrain.loss.pixel import CrossEntropy
from segtrain.loss.strips import SumOverStrips, pixel_losses
from segtrain.values import Given, NonNegative

LARGE = 2**26  # bytes
ALL = "all"  # the weights' name where they are the same for every pixel term
# How pixel terms are worked out, and the method of the pixel loss that it takes.
FORMS = {"whole": "forward", "strips": "weighted", "fused": "of_losses"}


class SegmentationLoss(nn.Module):
    """A pixel loss on every head's scores, each a mean over the valid pixels of all processes.

    Scores are resized bilinearly to the labels, in float32; strip by strip where they are large:
    then neither their full-resolution form nor its gradient is ever all in memory.

    Args:
        pixel: (ignore_index) -> pixel loss that returns (sum, weight). One without `weighted` (see
            `loss.pixel`) is never worked out strip by strip, one without `of_losses` never fused.
        region: (ignore_index) -> loss of the main scores as a whole that returns a scalar, such as
            Dice; or None.
        aux_weight: factor of the auxiliary head's term.
        region_weight: factor of the region term.
        presence_weight: factor of the presence term (the SE-loss of EncNet, section 3.2).
        resize: `logits`; or `labels`, which are then resized (nearest) to the scores, as DeepLabv2
            trains.
        normalize: whether pixel terms are means over pixels; if not, sums over pixels and means
            over images, as Caffe's un-normalised loss.
        ignore_index: void.
        form: of pixel terms: `whole`; `strips`, one after the other, which takes little memory;
            `fused`, two kernels on a GPU, which takes less; None: strips where a term's scores
            would take more than LARGE bytes at full resolution, else whole.
        aux_mining: whether hard pixels are mined for the auxiliary head too; if not, its term is
            the cross-entropy of all, with the same class weights.
        boundary_weight: factor of the loss of boundaries, where a network finds them (PIDNet). The
            main scores have one more pixel term then, of the pixels found there.

    Raises:
        UserError: the form is not for this pixel loss, or not for this machine.
    """

    def __init__(
        self,
        pixel: Annotated[Callable[..., nn.Module], Given("ignore_index")],
        region: Annotated[Callable[..., nn.Module], Given("ignore_index")] | None,
        aux_weight: NonNegative,
        region_weight: NonNegative,
        presence_weight: NonNegative,
        resize: Literal["logits", "labels"],
        normalize: bool,
        ignore_index: int,
        form: Literal["whole", "strips", "fused"] | None = None,
        aux_mining: bool = True,  # older runs say neither
        boundary_weight: NonNegative = 20.0,
    ) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.pixel = pixel(ignore_index=ignore_index)
        self.aux_pixel = self.pixel if aux_mining else self._without_mining()
        if form is not None:
            for loss in (self.pixel, self.aux_pixel):
                self._check(form, loss)
        self.region = None if region is None else region(ignore_index=ignore_index)
        self.aux_weight = aux_weight
        self.region_weight = region_weight
        self.presence_weight = presence_weight
        self.boundary_weight = boundary_weight
        self.resize = resize
        self.normalize = normalize
        self.form = form

    def forward(
        self, outputs: Outputs, target: Tensor, weights: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Weighted terms by name; their sum is to be minimised.

        Args:
            outputs: of a batch.
            target: (N, H, W) train ids.
            weights: what sums over pixels are divided by, instead of the batch's own pixels; see
                `weights`. Other terms are means over the batch all the same.
        """
        align_corners = outputs["align_corners"]
        with torch.autocast(target.device.type, enabled=False):
            terms = {}
            for name, scores in pixel_scores(outputs).items():
                total, weight = self._pixel_sums(name, scores, target, align_corners)
                given = None if weights is None else weights.get(name, weights.get(ALL))
                terms[name] = self._mean(total, weight, given, len(scores))
            if "aux" in terms:
                terms["aux"] = self.aux_weight * terms["aux"]
            if "presence" in outputs:
                presence = presence_loss(outputs["presence"].float(), target, self.ignore_index)
                terms["presence"] = self.presence_weight * presence
            if "boundary" in outputs:
                found = resize(outputs["boundary"].float(), target.shape[1:], align_corners)
                boundary = boundary_loss(found, target, self.ignore_index)
                terms["boundary"] = self.boundary_weight * boundary
                labels = labels_at_boundaries(found, target, self.ignore_index)
                scores = outputs["logits"]
                total, weight = self._pixel_sums("main", scores, labels, align_corners)
                given = None if weights is None else weight.detach().float()
                terms["at_boundary"] = self._mean(total, weight, given, len(scores))
            if self.region is not None:
                scores, labels = self._fit(outputs["logits"], target, align_corners)
                terms["region"] = self.region_weight * self.region(scores, labels)
        return terms

    def _mean(self, total: Tensor, weight: Tensor, given: Tensor | None, images: int) -> Tensor:
        """Of a pixel term: over the pixels of all processes, or what is given in their place."""
        if not self.normalize:
            return total / images
        divisor = mean_over_processes(weight) if given is None else given
        return total / divisor.clamp(min=1e-6)

    @property
    def weighs_by_labels(self) -> bool:
        """Whether the labels alone tell what `weights` are."""
        if not self.normalize:
            return True
        is_one = self.aux_pixel is self.pixel  # else each term has a weight of its own
        return self.resize == "logits" and is_one and hasattr(self.pixel, "weight")

    def weights(self, outputs: Outputs | None, target: Tensor) -> dict[str, Tensor]:
        """What the pixel terms are divided by, by their names; `all` where it is one for all.

        Args:
            outputs: of a batch, without a gradient; None where `weighs_by_labels`.
            target: (N, H, W) train ids.
        """
        if not self.normalize:
            return {}
        with torch.autocast(target.device.type, enabled=False):
            if outputs is None:
                return {ALL: self.pixel.weight(target).float()}
            return {
                name: self._pixel_sums(name, scores, target, outputs["align_corners"])[1].float()
                for name, scores in pixel_scores(outputs).items()
            }

    def _fit(self, logits: Tensor, target: Tensor, align_corners: bool) -> tuple[Tensor, Tensor]:
        """Both in one size, the scores in float32."""
        logits = logits.float()
        if self.resize == "labels" and logits.shape[2:] != target.shape[1:]:
            return logits, nearest_labels(target, logits.shape[2:], align_corners)
        return resize(logits, target.shape[1:], align_corners), target

    def _without_mining(self) -> CrossEntropy:
        weights = getattr(self.pixel, "class_weights", None)
        return CrossEntropy(None if weights is None else weights.tolist(), 0.0, self.ignore_index)

    def _check(self, form: str, pixel: nn.Module) -> None:
        if not hasattr(pixel, FORMS[form]):
            raise UserError(
                f"loss.form={form}: {type(pixel).__name__} has no method '{FORMS[form]}', "
                "which it takes; use loss.form=null"
            )
        if form == "fused" and getattr(pixel, "label_smoothing", 0):
            raise UserError(
                f"loss.form=fused: loss.pixel.label_smoothing={pixel.label_smoothing} needs "
                "the scores of all classes; use loss.form=strips"
            )
        if form == "fused" and find_spec("triton") is None:
            raise UserError("loss.form=fused: Triton is not installed; use loss.form=null")

    def _pixel_sums(
        self, name: str, logits: Tensor, target: Tensor, align_corners: bool
    ) -> tuple[Tensor, Tensor]:
        """Sum of the pixels' losses in a term, and of their weights."""
        pixel = self.aux_pixel if name == "aux" else self.pixel
        form = self._form_of(pixel, logits, target)
        if form == "fused":
            from segtrain.loss.fused import cross_entropy  # Triton is not there on every system

            losses = cross_entropy(logits, target, align_corners, self.ignore_index)
            return pixel.of_losses(losses, target)
        if form == "strips":
            chosen = None
            if not pixel.separable:
                losses = pixel_losses(logits.detach(), target, align_corners, pixel.losses)
                chosen = pixel.select(losses, target)
            return SumOverStrips.apply(logits, target, chosen, align_corners, pixel.weighted)
        return pixel(*self._fit(logits, target, align_corners))

    def _form_of(self, pixel: nn.Module, logits: Tensor, target: Tensor) -> str:
        """How a term is worked out."""
        if self.resize == "labels":
            return "whole"  # full-resolution scores do not come about
        if self.form == "fused":
            return "fused"
        if not logits.requires_grad or not hasattr(pixel, "weighted"):
            return "whole"
        is_large = 4 * logits.shape[1] * target.numel() > LARGE
        return self.form or ("strips" if is_large else "whole")


def pixel_scores(outputs: Outputs) -> dict[str, Tensor]:
    """The scores with a pixel term each, by its name."""
    scores = {"main": outputs["logits"]}
    if "aux" in outputs:
        scores["aux"] = outputs["aux"]
    return scores | {f"scale{i}": part for i, part in enumerate(outputs.get("scales", ()))}


def nearest_labels(target: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Labels (N, H, W) at the positions of a smaller grid, (N, *size)."""
    rows, columns = (
        _nearest(length, small, align_corners, target.device)
        for length, small in zip(target.shape[1:], size, strict=True)
    )
    return target[:, rows[:, None], columns[None, :]]


def _nearest(length: int, small: int, align_corners: bool, device: torch.device) -> Tensor:
    positions = torch.arange(small, device=device)
    if align_corners:
        positions = positions * ((length - 1) / max(small - 1, 1))
    else:
        positions = (positions + 0.5) * (length / small) - 0.5
    return positions.round().long().clamp(0, length - 1)


def presence_loss(presence: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Binary cross-entropy of which classes each image shows, mean over images and classes.

    Args:
        presence: (N, K) logits.
        target: (N, H, W) train ids.
        ignore_index: void.
    """
    labels = target.flatten(1).long()
    counted = torch.zeros(len(labels), 256, device=labels.device)
    counted.scatter_(1, labels, 1.0)
    counted[:, ignore_index] = 0
    return F.binary_cross_entropy_with_logits(presence, counted[:, : presence.shape[1]])


def number_of_processes() -> int:
    """That train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_processes(weight: Tensor) -> Tensor:
    """The weight averaged over processes.

    Data-parallel training averages gradients over processes. Dividing each process's sum by the
    mean weight therefore gives sum / weight of the whole batch, however unevenly void pixels lie.
    """
    weight = weight.detach().float()
    if number_of_processes() > 1:
        dist.all_reduce(weight)
        weight = weight / number_of_processes()
    return weight
