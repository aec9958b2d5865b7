"""A trained network that says what pictures show."""

import copy
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from segtrain import notebook
from segtrain.contracts import DENSE, Detections, Segments
from segtrain.errors import UserError
from segtrain.hardware import resolve_precision
from segtrain.inference.multilabel import masks_of
from segtrain.inference.semantic import SemanticInference
from segtrain.inference.strips import Decide, enlarged_labels, label_map, largest
from segtrain.inference.window import SlidingWindow
from segtrain.label_set import LabelSet
from segtrain.masks import as_arrays, codes_of
from segtrain.picture import (
    AnyImage,
    Picture,
    fit_pixels,
    read_picture,
    resized_by,
    resized_to,
)
from segtrain.prediction import (
    InstancePrediction,
    MultilabelPrediction,
    PanopticPrediction,
    Prediction,
    SemanticPrediction,
)
from segtrain.trained import white_level

logger = logging.getLogger("segtrain")

MASK_THRESHOLD = 0.5  # of the probability that a pixel belongs to an instance
PRECISIONS = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class Settings(NamedTuple):
    """How a network is used.

    Args:
        device: cpu, cuda, cuda:1, ...; `auto` takes a GPU where there is one.
        precision: 32-true; bf16-mixed or 16-mixed, which are faster on GPUs that have them and
            change a few pixels; `auto` as in training.
        min_score: instances that score less are left out; proposals are all kept.
        max_pixels: larger pictures go through a sliding window at one scale, so that memory does
            not grow with the number of classes; for networks that find instances or segments they
            are reduced.
        short_side: semantic networks see pictures with a shorter side of so many pixels, and their
            scores are resized back; None: as they are.
    """

    device: str
    precision: str
    min_score: float
    max_pixels: int
    short_side: int | None


class Predictor:
    """A trained network, ready for pictures.

    Args:
        model: in evaluation mode.
        inference: (model, images) -> scores or detections.
        labels: the classes.
        config: of the network; `experiment` is its name.
        settings: how it is used.
        window: through which larger pictures are looked at where inference has no window.

    Attributes:
        device: that the network is on.
        task: semantic, multilabel, instance, proposal or panoptic.
        white: the white level of images of more than 8 bits a channel, see `read_picture`.

    Raises:
        UserError: there is no such device or precision.
    """

    def __init__(
        self,
        model: nn.Module,
        inference: Any,
        labels: LabelSet,
        config: dict,
        settings: Settings,
        window: SlidingWindow,
    ) -> None:
        self.device = find_device(settings.device)
        self.dtype = find_dtype(settings.precision, self.device)
        self.model = model.to(self.device)
        self.inference = inference
        self.labels = labels
        self.config = config
        self.white = white_level(config)
        self.task: str = inference.task
        self.settings = settings
        self.window = window

    def __call__(self, image: AnyImage) -> Prediction:
        """What one picture shows; `segtrain.picture.read_picture` says what may be given.

        Raises:
            UserError: it cannot be read.
        """
        return self.batch([image])[0]

    def batch(self, images: Sequence[AnyImage]) -> list[Prediction]:
        """What each picture shows. Those of equal size go through the network together.

        Raises:
            UserError: one cannot be read; nothing is predicted then.
        """
        pictures = [read_picture(image, self.white) for image in images]
        if self.task in DENSE:
            return self._dense(pictures)
        seen = [fit_pixels(picture.pixels, self.settings.max_pixels) for picture in pictures]
        found = self._look(seen)
        if self.task == "panoptic":
            return [self._segments(*each) for each in zip(pictures, found, strict=True)]
        return [self._instances(*each) for each in zip(pictures, seen, found, strict=True)]

    def probabilities(self, image: AnyImage) -> np.ndarray:
        """(K, H, W) float32 of a picture; they sum to 1, unless classes may overlap.

        Raises:
            UserError: the network finds instances or segments, or the picture has more than
                `max_pixels`.
        """
        picture = read_picture(image, self.white)
        seen = self._resized(picture.pixels)
        if self.task not in DENSE or self._is_large(picture.pixels) or self._is_large(seen):
            raise UserError(
                f"no probabilities of {self.task} networks, nor of pictures with more than "
                f"max_pixels={self.settings.max_pixels}, whose scores are never in memory at once"
            )
        (scores,) = self._look([seen])
        if not self.inference.gives_probabilities:
            scores = scores.softmax(0)
        size = picture.pixels.shape[:2]
        return F.interpolate(scores[None].float(), size, mode="bilinear")[0].cpu().numpy()

    def __repr__(self) -> str:
        classes = f"{self.labels.num_classes} classes"
        return notebook.one_line(
            f"<Predictor {type(self.model).__name__}, {self.task}, {classes}, {self.device}>"
        )

    def _repr_html_(self) -> str:
        """The network, how it looks at pictures, and the classes that it knows."""
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        found = {
            "network": f"{type(self.model).__name__}, {parameters / 1e6:.2f} M parameters",
            "experiment": str(self.config.get("experiment", "-")),
            "task": self.task,
            "protocol": str(self.inference.protocol.get("inference", "-")),
            "device": f"{self.device}, {'float32' if self.dtype is None else self.dtype}",
        }
        classes = zip(self.labels.names, self.labels.palette, strict=True)
        return notebook.card(
            "Predictor", f"{self.labels.num_classes} classes; call it with a picture",
            notebook.facts(found), notebook.chips(list(classes)),
        )  # fmt: skip

    def _look(self, images: list[np.ndarray]) -> list:
        """What inference says of images (H, W, 3)."""
        with torch.inference_mode(), self._autocast():
            return self.inference(self.model, [self._tensor(image) for image in images])

    def _tensor(self, image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(image).permute(2, 0, 1).to(self.device)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def _dense(self, pictures: list[Picture]) -> list[SemanticPrediction | MultilabelPrediction]:
        kind = SemanticPrediction if self.task == "semantic" else MultilabelPrediction
        seen = [self._resized(picture.pixels) for picture in pictures]
        small = [number for number, image in enumerate(seen) if not self._is_large(image)]
        scores = dict(zip(small, self._look([seen[n] for n in small]), strict=True))
        results = []
        for number, picture in enumerate(pictures):
            size, protocol = picture.pixels.shape[:2], self.inference.protocol
            if number in scores:
                labels = enlarged_labels(scores.pop(number), size, self._decide())
            else:
                labels, protocol = self._large(seen[number], size)
            protocol = {**protocol, "short_side": self.settings.short_side}
            result = kind(picture, labels, self.labels, protocol, self.probabilities)
            results.append(result)
        return results

    def _large(self, image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, dict]:
        """Labels (H, W) or masks (K, H, W) of a picture too large for one look, and how."""
        one_look = self._one_look()
        left_out = [key for key in ("scales", "flip", "crf")
                    if self.inference.protocol[key] != one_look.protocol[key]]  # fmt: skip
        without = f", without {', '.join(left_out)}" if left_out else ""
        shown = "large       %dx%d pixels, more than max_pixels: by sliding window%s"
        logger.info(shown, *size[::-1], without)
        terms = one_look.logit_adjustment
        terms = None if terms is None else torch.tensor(terms).view(-1, 1, 1)
        picture = self._tensor(resized_by(image, one_look.scales[0]))
        with torch.inference_mode(), self._autocast():
            classes = self.labels.num_classes
            decide = self._decide(of_logits=True)
            labels = label_map(one_look.window, self.model, picture, terms, classes, decide)
        if labels.shape[-2:] != size:
            layers = labels.reshape(-1, *labels.shape[-2:]).view(np.uint8)
            resized = [cv2.resize(layer, size[::-1], interpolation=cv2.INTER_NEAREST)
                       for layer in layers]  # fmt: skip
            labels = np.stack(resized).view(labels.dtype).reshape(*labels.shape[:-2], *size)
        kept = {key: value for key, value in self.inference.protocol.items() if key == "thresholds"}
        return labels, {**one_look.protocol, **kept}

    def _decide(self, of_logits: bool = False) -> Decide:
        """Of scores what a picture shows: labels, or masks of classes that may overlap."""
        if self.task == "semantic":
            return largest
        thresholds = self.inference.thresholds
        return lambda scores: masks_of(
            scores.float().sigmoid() if of_logits else scores, thresholds
        )

    def _one_look(self) -> SemanticInference:
        """The network's own protocol, as far as it can be had window by window."""
        own = self.inference
        if not isinstance(own, SemanticInference):
            return SemanticInference(self.window, False, [1.0], False, None, None)
        scales = own.scales if len(own.scales) == 1 else [1.0]
        window, scores = (self.window, None) if own.window is None else (own.window, own.scores)
        if self.task == "multilabel" and own.window is None:
            window = copy.copy(window)
            window.average = "logits"  # others are of classes of which a pixel has one
        terms = own.logit_adjustment
        return SemanticInference(window, own.pad, scales, False, terms, None, scores=scores)

    def _resized(self, image: np.ndarray) -> np.ndarray:
        """The image as inference gets it: of a large one at the size of the test, if it has one."""
        if self.settings.short_side is not None:
            image = resized_by(image, self.settings.short_side / min(image.shape[:2]))
        own = self.inference
        if self._is_large(image) and isinstance(own, SemanticInference) and own.size is not None:
            return resized_to(image, own.size_seen(image.shape[:2], scale=1.0))
        return image

    def _is_large(self, image: np.ndarray) -> bool:
        return image.shape[0] * image.shape[1] > self.settings.max_pixels

    def _instances(
        self, picture: Picture, seen: np.ndarray, found: Detections
    ) -> InstancePrediction:
        size = picture.pixels.shape[:2]
        found = as_arrays(found)
        boxes, scores, labels = found["boxes"], found["scores"], found["labels"]
        kept = np.flatnonzero(scores >= self.settings.min_score)
        if self.task == "proposal":
            kept = np.arange(len(scores))
        scale = size[1] / seen.shape[1], size[0] / seen.shape[0]
        boxes = boxes[kept] * np.float32([*scale, *scale])
        limits = np.array([size[1], size[0]] * 2, np.float32)
        return InstancePrediction(
            picture,
            boxes.clip(0, limits),
            scores[kept],
            labels[kept],
            codes_of(found, size, MASK_THRESHOLD, kept, scale),
            self.labels,
            self.task,
            self.inference.protocol,
        )

    def _segments(self, picture: Picture, found: Segments) -> PanopticPrediction:
        size = picture.pixels.shape[:2]
        numbers = found["map"].cpu().numpy().astype(np.uint16)
        return PanopticPrediction(
            picture,
            cv2.resize(numbers, size[::-1], interpolation=cv2.INTER_NEAREST).astype(np.int32),
            found["labels"].cpu().numpy(),
            found["scores"].float().cpu().numpy(),
            self.labels,
            self.inference.protocol,
        )


def find_device(name: str) -> torch.device:
    """The device of that name; `auto` takes a GPU where there is one.

    Raises:
        UserError: there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device("cuda" if name == "gpu" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"device={name}: not on this machine ({reason}); use auto or cpu") from None
    return device


def find_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """What autocast computes in; None for float32 throughout.

    Raises:
        UserError: there is no such precision.
    """
    if precision == "auto":
        precision = resolve_precision({"precision": "auto", "accelerator": device.type})
    if precision not in PRECISIONS:
        raise UserError(f"precision={precision}: expected auto, {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]
