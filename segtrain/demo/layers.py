"""What the page shows of a prediction: numbers, and layers of chosen classes, without the network.

H x W pixels of the picture, h x w as it is shown. Classes are train ids.
"""

from collections.abc import Collection
from dataclasses import replace

import cv2
import numpy as np
from PIL import Image, ImageDraw

from segtrain.prediction import (
    InstancePrediction,
    MultilabelPrediction,
    PanopticPrediction,
    Prediction,
    SemanticPrediction,
)
from segtrain.prediction.files import OVERLAY_SIDES
from segtrain.prediction.instance import SHOWN_PROPOSALS
from segtrain.prediction.panoptic import Segment
from segtrain.report.drawing import fit, innermost, instance_shades, typeface

EDGE, INK = (255, 255, 255, 255), (0, 0, 0, 255)  # one stands out from any colour
NUMBER_SIZE = 14  # pixels


def described(prediction: Prediction) -> dict:
    """Size, the classes that are there with colour and share of pixels, and what can be counted."""
    height, width = prediction.image.shape[:2]
    labels, names = prediction.label_set, set(prediction.names)
    classes = [
        {"name": name, "id": number, "colour": list(labels.palette[number]),
         "share": float(prediction.mask(name).mean())}
        for number, name in enumerate(labels.names) if name in names
    ]  # fmt: skip
    return {"width": width, "height": height, "instances": _listed(prediction),
            "classes": sorted(classes, key=lambda entry: -entry["share"])}  # fmt: skip


def _listed(prediction: Prediction) -> list[dict]:
    """The instances or segments with their numbers' names, scores and pixels."""
    if isinstance(prediction, PanopticPrediction):
        return [{"name": one.name, "score": one.score, "area": one.pixels}
                for one in prediction.segments]  # fmt: skip
    if isinstance(prediction, InstancePrediction):
        return [
            {"name": prediction.names[number], "score": float(prediction.scores[number]),
             "area": int(prediction.mask(number).sum())}
            for number in _shown(prediction)
        ]  # fmt: skip
    return []


def confident(prediction: Prediction, min_score: float) -> Prediction:
    """The prediction without instances that score less; proposals and pixels are all kept."""
    if not isinstance(prediction, InstancePrediction) or prediction.task == "proposal":
        return prediction
    count = int(np.count_nonzero(prediction.scores >= min_score))  # the best come first
    boxes, scores, labels = (
        values[:count] for values in (prediction.boxes, prediction.scores, prediction.labels)
    )
    codes = prediction.codes[:count]
    return replace(prediction, boxes=boxes, scores=scores, labels=labels, codes=codes)


def chosen_mask(prediction: Prediction, classes: Collection[int], min_score: float) -> np.ndarray:
    """(H, W) bool: all pixels of chosen classes, or of what scores enough of them."""
    if isinstance(prediction, SemanticPrediction):
        return np.isin(prediction.labels, list(classes))
    if isinstance(prediction, MultilabelPrediction):
        return prediction.masks[list(classes)].any(0)
    if isinstance(prediction, PanopticPrediction):
        numbers = [one.number for one in _chosen_segments(prediction, classes, min_score)]
        return np.isin(prediction.map, numbers)
    union = np.zeros(prediction.image.shape[:2], bool)
    for number in _chosen(prediction, classes, min_score):
        union |= prediction.mask(number)
    return union


def shown_picture(prediction: Prediction) -> Image.Image:
    """The picture as it is shown, (w, h): its longer side is OVERLAY_SIDES[1] at most."""
    image, most = prediction.image, OVERLAY_SIDES[1]
    return Image.fromarray(fit(image, most) if max(image.shape[:2]) > most else image)


def layer(prediction: Prediction, classes: Collection[int], min_score: float) -> Image.Image:
    """(w, h) RGBA to lie over the picture: what is chosen, in the classes' colours, outlined."""
    size = shown_picture(prediction).size
    palette = np.array(prediction.label_set.palette, np.uint8)
    numbers: list[int] = []
    if isinstance(prediction, SemanticPrediction):
        labels = cv2.resize(prediction.labels, size, interpolation=cv2.INTER_NEAREST)
        owner = np.where(np.isin(labels, list(classes)), labels + 1, 0)  # 0, or 1 + the region
        colours = palette
    elif isinstance(prediction, MultilabelPrediction):
        owner = np.zeros(size[::-1], int)
        for number in sorted(classes, key=lambda k: -np.count_nonzero(prediction.masks[k])):
            mask = prediction.masks[number].view(np.uint8)
            owner[cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST) > 0] = number + 1
        colours = palette
    elif isinstance(prediction, PanopticPrediction):
        chosen = [one.number for one in _chosen_segments(prediction, classes, min_score)]
        shown = np.where(np.isin(prediction.map, chosen), prediction.map, 0).astype(np.uint16)
        owner = cv2.resize(shown, size, interpolation=cv2.INTER_NEAREST)
        colours = instance_shades(prediction.labels, prediction.label_set)
    else:
        numbers = _chosen(prediction, classes, min_score)
        owner = _owners(prediction, numbers, size)
        ids = (
            prediction.labels if prediction.task == "instance" else np.arange(len(prediction.codes))
        )
        colours = palette[ids % len(palette)]
    pixels = np.zeros((*owner.shape, 4), np.uint8)
    inside = owner > 0
    pixels[inside, :3], pixels[inside, 3] = colours[owner[inside] - 1], 255
    for axis in (0, 1):
        lines, turned = np.moveaxis(owner, axis, 0), np.moveaxis(pixels, axis, 0)
        edge = lines[1:] != lines[:-1]
        turned[1:][edge], turned[:-1][edge] = EDGE, INK
    drawn = Image.fromarray(pixels)
    draw = ImageDraw.Draw(drawn)
    if isinstance(prediction, PanopticPrediction):
        for place, one in enumerate(prediction.segments, 1):
            if (mask := owner == one.number).any():
                _number(draw, place, *innermost(mask))
    for number in numbers:
        corners = prediction.boxes[number] * (size[0] / prediction.image.shape[1])
        draw.rectangle(tuple(corners), outline=EDGE)
        _number(draw, number + 1, *corners[:2])
    return drawn


def _number(draw: ImageDraw.ImageDraw, number: int, left: float, top: float) -> None:
    """Writes the number under which something stands in the list beside the picture."""
    font = typeface(NUMBER_SIZE)
    _, _, right, bottom = draw.textbbox((left + 2, top + 1), str(number), font)
    draw.rectangle((left, top, right + 2, bottom + 2), fill=INK)
    draw.text((left + 2, top + 1), str(number), EDGE, font)


def overlay(prediction: Prediction, cover: Image.Image, opacity: float) -> Image.Image:
    """(w, h) RGB: the picture below a layer of that opacity, 0..1."""
    shown = shown_picture(prediction)
    alpha = cover.getchannel("A").point(lambda value: round(value * opacity))
    shown.paste(cover.convert("RGB"), mask=alpha)
    return shown


def _owners(
    prediction: InstancePrediction, numbers: list[int], size: tuple[int, int]
) -> np.ndarray:
    """(h, w): 1 + the number of each pixel's instance, the smallest on top; 0 where is none."""
    masks = {number: cv2.resize(prediction.mask(number).view(np.uint8), size,
                                interpolation=cv2.INTER_NEAREST) for number in numbers}  # fmt: skip
    owner = np.zeros(size[::-1], int)
    for number in sorted(masks, key=lambda number: -np.count_nonzero(masks[number])):
        owner[masks[number] > 0] = number + 1
    return owner


def _shown(prediction: InstancePrediction) -> range:
    """The instances that are shown at all: of proposals the best."""
    count = len(prediction.codes)
    return range(count if prediction.task == "instance" else min(count, SHOWN_PROPOSALS))


def _chosen(
    prediction: InstancePrediction, classes: Collection[int], min_score: float
) -> list[int]:
    """The instances of chosen classes that score enough; proposals have no class."""
    return [
        number for number in _shown(prediction)
        if prediction.scores[number] >= min_score
        and (prediction.task == "proposal" or prediction.labels[number] in classes)
    ]  # fmt: skip


def _chosen_segments(
    prediction: PanopticPrediction, classes: Collection[int], min_score: float
) -> list[Segment]:
    """The segments of chosen classes that score enough."""
    return [one for one in prediction.segments if one.score >= min_score and one.label in classes]
