"""Instance targets, made from masks or from run-length codes."""

import cv2
import numpy as np

from segtrain.contracts import InstanceTarget


def target_from_masks(
    masks: np.ndarray, labels: list[int], crowd: np.ndarray, image_id: int
) -> InstanceTarget:
    """Target whose boxes and areas are those of the masks.

    Args:
        masks: (n, H, W) bool or 0 and 1, none of them empty.
        labels: n train ids.
        crowd: (n,) bool.
        image_id: of the image.
    """
    return {
        "boxes": mask_boxes(masks),
        "labels": np.asarray(labels, np.int64),
        "masks": masks.view(np.uint8),
        "crowd": np.asarray(crowd, bool),
        "area": np.array([np.count_nonzero(mask) for mask in masks], np.float32),
        "image_id": image_id,
    }


def mask_boxes(masks: np.ndarray) -> np.ndarray:
    """(n, 4) float32 boxes x1 y1 x2 y2 around masks (n, H, W); x2 and y2 are outer edges."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
        box[:] = left, top, left + width, top + height
    return boxes


def single_objects(target: InstanceTarget) -> InstanceTarget:
    """The target without its crowds, which are no examples of single objects."""
    keep = ~target["crowd"]
    chosen = {key: target[key][keep] for key in ("boxes", "labels", "masks", "crowd", "area")}
    return {**chosen, "image_id": target["image_id"]}


def resize_target(target: InstanceTarget, size: tuple[int, int]) -> InstanceTarget:
    """The target of the image resized to `size`, width and height."""
    count, height, width = target["masks"].shape
    masks = np.empty((count, size[1], size[0]), np.uint8)
    for mask, resized in zip(target["masks"], masks, strict=True):
        cv2.resize(mask, size, dst=resized, interpolation=cv2.INTER_NEAREST_EXACT)
    x, y = size[0] / width, size[1] / height
    boxes = target["boxes"] * np.array([x, y, x, y], np.float32)
    area = target["area"] * np.float32(x * y)
    return {**target, "boxes": boxes, "masks": masks, "area": area}


def flip_target(target: InstanceTarget) -> InstanceTarget:
    """The target of the image mirrored left to right."""
    width = target["masks"].shape[2]
    boxes = target["boxes"].copy()
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    return {**target, "boxes": boxes, "masks": np.ascontiguousarray(target["masks"][..., ::-1])}
