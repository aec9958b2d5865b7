"""Pictures of one evaluated image: as it is, its truth, what was found, and what is wrong."""

import cv2
import numpy as np

from segtrain.contracts import Detections, InstanceTarget
from segtrain.label_set import LabelSet
from segtrain.masks import codes_of, decode
from segtrain.metric.image_scores import SURE_SCORE
from segtrain.report.drawing import draw_instances, fit, paint_masks, paint_regions
from segtrain.report.examples import Key
from segtrain.report.legend import BACKGROUND

SHOWN_PROPOSALS = 10
LEAST_SIDE = 320  # pixels of a picture, below which outlines would cover what they surround
MASK_THRESHOLD = 0.5  # of the probability that a detection's pixel belongs to it
# Told apart by people who see colours otherwise, and by their lightness (Okabe and Ito).
WRONG, MISSED, EXTRA, SWAPPED = (213, 94, 0), (213, 94, 0), (0, 114, 178), (240, 228, 66)
ERROR_STRENGTH = 0.85
ERROR_KEYS = [Key("missed", MISSED), Key("extra", EXTRA), Key("another class", SWAPPED)]


def brought_to_size(image: np.ndarray, max_side: int) -> np.ndarray:
    """The image (H, W, 3) with a longer side of `max_side` at most, and of LEAST_SIDE at least."""
    side = max(image.shape[:2])
    wanted = min(max(side, LEAST_SIDE), max_side)
    return image if side == wanted else fit(image, wanted)


def semantic_panels(
    image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, labels: LabelSet, max_side: int
) -> dict[str, np.ndarray]:
    """Image, truth, prediction and errors by name, each (h, w, 3) uint8 RGB.

    Void pixels of the truth are striped.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) uint8 train ids, void included.
        prediction: (H, W) train ids.
        labels: the colours.
        max_side: the longer side of each picture, at most.
    """
    picture = brought_to_size(image, max_side)
    colours = np.zeros((256, 3), np.uint8)
    colours[: labels.num_classes] = labels.palette
    painted, void = np.ones(256, bool), np.zeros(256, bool)
    void[labels.ignore_index] = True
    painted[: labels.num_classes] = [name != BACKGROUND for name in labels.names]
    shown = [
        paint_regions(picture, ids.astype(np.uint8), colours, void, painted)
        for ids in (truth, prediction)
    ]
    kind = (truth != prediction).astype(np.uint8)
    kind[truth == labels.ignore_index] = 2
    errors = marked(picture, kind, {1: WRONG}, striped=2)
    return {"image": picture, "truth": shown[0], "prediction": shown[1], "errors": errors}


def multilabel_panels(
    image: np.ndarray,
    truth: np.ndarray,
    valid: np.ndarray,
    prediction: np.ndarray,
    labels: LabelSet,
    max_side: int,
) -> dict[str, np.ndarray]:
    """As `semantic_panels`, of classes that may overlap; a pixel is wrong where any class is.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth, prediction: (K, H, W) bool.
        valid: (H, W) bool.
        labels: the colours.
        max_side: the longer side of each picture, at most.
    """
    picture = brought_to_size(image, max_side)
    kind = (truth != prediction).any(0).astype(np.uint8)
    kind[~valid] = 2
    return {
        "image": picture,
        "truth": paint_masks(picture, truth & valid, labels),
        "prediction": paint_masks(picture, prediction, labels),
        "errors": marked(picture, kind, {1: WRONG}, striped=2),
    }


def instance_panels(
    image: np.ndarray,
    truth: InstanceTarget,
    found: Detections,
    labels: LabelSet,
    max_side: int,
) -> dict[str, np.ndarray]:
    """As `semantic_panels`, of instances: true ones, those found that are sure, and errors.

    Errors go by pixels: missed, where there is an instance and none was found; extra, where one
    was found and there is none; another class. Crowds are striped.
    """
    chosen = np.flatnonzero(np.asarray(found["scores"]) >= SURE_SCORE)
    masks = _masks(found, chosen, image.shape[:2])
    classes = np.asarray(found["labels"])[chosen]
    true_map = _class_map(truth["masks"], truth["labels"], truth["crowd"])
    found_map = _class_map(masks, classes, np.zeros(len(chosen), bool))
    kind = np.zeros(image.shape[:2], np.uint8)
    kind[(true_map > 0) & (found_map == 0)] = 1
    kind[(true_map == 0) & (found_map > 0)] = 2
    kind[(true_map > 0) & (found_map > 0) & (true_map != found_map)] = 3
    kind[true_map == 255] = 4
    small = fit(image, max_side)
    return {
        "image": small,
        "truth": draw_truth(image, truth, labels, max_side),
        "prediction": draw_found(image, found, labels, max_side, SURE_SCORE, None),
        "errors": marked(small, kind, {1: MISSED, 2: EXTRA, 3: SWAPPED}, striped=4),
    }


def proposal_panels(
    image: np.ndarray,
    truth: InstanceTarget,
    found: Detections,
    labels: LabelSet,
    max_side: int,
    limit: int,
) -> dict[str, np.ndarray]:
    """As `instance_panels`, of proposals: the best ones, and the one that fits each object best.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: the objects.
        found: proposals, best first.
        labels: the colours.
        max_side: the longer side of each picture.
        limit: proposals from which the fitting ones are taken.
    """
    masks = _masks(found, np.arange(min(limit, len(found["scores"]))), image.shape[:2])
    objects = np.flatnonzero(~np.asarray(truth["crowd"]))
    pixels = image.shape[0] * image.shape[1]
    flat = masks.reshape(len(masks), pixels).astype(np.float32)
    wanted = truth["masks"][objects].reshape(len(objects), pixels).astype(np.float32)
    common = wanted @ flat.T
    union = wanted.sum(1)[:, None] + flat.sum(1)[None] - common
    overlap = common / np.maximum(union, 1)
    best = overlap.argmax(1) if len(masks) else np.zeros(0, int)
    fitting = objects[: len(best)]
    captions = [f"IoU {overlap[n, index]:.2f}" for n, index in enumerate(best)]
    boxes = np.asarray(found["boxes"])[best]
    solid = np.zeros(len(best), bool)
    return {
        "image": fit(image, max_side),
        "truth": draw_truth(image, truth, labels, max_side),
        "prediction": draw_found(image, found, labels, max_side, 0.0, SHOWN_PROPOSALS),
        "best fits": draw_instances(image, boxes, np.asarray(truth["labels"])[fitting],
                                    masks[best], captions, solid, labels, max_side),
    }  # fmt: skip


def draw_truth(
    image: np.ndarray, truth: InstanceTarget, labels: LabelSet, max_side: int
) -> np.ndarray:
    """True instances over their image, with their classes; crowds are striped."""
    names = [labels.names[label] for label in truth["labels"]]
    crowd = truth["crowd"]
    captions = [f"crowd {name}" if c else name for name, c in zip(names, crowd, strict=True)]
    return draw_instances(
        image, truth["boxes"], truth["labels"], truth["masks"], captions, crowd, labels, max_side
    )


def draw_found(
    image: np.ndarray,
    found: Detections,
    labels: LabelSet,
    max_side: int,
    min_score: float,
    top: int | None,
) -> np.ndarray:
    """Found instances over their image, with their scores.

    Args:
        image: (H, W, 3) uint8 RGB.
        found: as numpy arrays or on the CPU, best first.
        labels: names and colours.
        max_side: the longer side of the picture, to which a small image is enlarged.
        min_score: detections that score less are not shown.
        top: for proposals, which have no class: so many of the best are shown, whatever their
            score, in different colours and with the score alone.
    """
    scores = np.asarray(found["scores"])
    shown = np.flatnonzero(scores >= min_score) if top is None else np.arange(len(scores))[:top]
    scores, boxes, classes = (np.asarray(found[k])[shown] for k in ("scores", "boxes", "labels"))
    captions = [f"{labels.names[c]} {score:.2f}" for c, score in zip(classes, scores, strict=True)]
    if top is not None:
        classes = np.arange(len(shown)) % labels.num_classes
        captions = [f"{score:.2f}" for score in scores]
    masks = _masks(found, shown, image.shape[:2])
    solid = np.zeros(len(shown), bool)
    return draw_instances(image, boxes, classes, masks, captions, solid, labels, max_side)


def _masks(found: Detections, chosen: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(m, H, W) uint8 masks of chosen detections."""
    return decode(codes_of(found, size, MASK_THRESHOLD, chosen), size)


def _class_map(masks: np.ndarray, classes: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """(H, W) uint8: 1 + the class, 0 where nothing is, 255 in crowds; the smallest is on top."""
    classes_at = np.zeros(masks.shape[1:], np.uint8)
    for index in np.argsort([-np.count_nonzero(mask) for mask in masks]):
        classes_at[masks[index] > 0] = 255 if crowd[index] else 1 + int(classes[index])
    return classes_at


def marked(
    picture: np.ndarray, kind: np.ndarray, colours: dict[int, tuple], striped: int
) -> np.ndarray:
    """A pale grey picture with pixels of some kinds (H, W) in their colours, one kind striped."""
    kind = cv2.resize(kind, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) * 0.55 + 90
    marked = np.repeat(grey[..., None], 3, axis=2)
    for number, colour in colours.items():
        where = kind == number
        marked[where] = ERROR_STRENGTH * np.array(colour) + (1 - ERROR_STRENGTH) * marked[where]
    rows, columns = np.indices(kind.shape)
    marked[(kind == striped) & ((rows + columns) // 4 % 2 == 0)] = 235
    return marked.round().clip(0, 255).astype(np.uint8)
