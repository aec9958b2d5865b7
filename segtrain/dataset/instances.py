"""Instance targets, made from masks, and what of them travels to the training process."""

import cv2
import numpy as np
import torch

from segtrain.contracts import InstanceTarget, TrainInstances


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


def training_objects(target: InstanceTarget, size: tuple[int, int], flip: bool) -> TrainInstances:
    """The single objects of an image that is resized to `size` and mirrored or not.

    Only the pixels around each mask are resized, to the values that they get in the whole mask. An
    object whose mask loses its last pixel, or never had one, gets the pixel amid its box.

    Args:
        target: the instances of the image as it was.
        size: width and height of the resized image.
        flip: whether it is mirrored left to right.
    """
    height, width = target["masks"].shape[1:]
    chosen = np.flatnonzero(~target["crowd"])
    scale = np.array([size[0] / width, size[1] / height] * 2, np.float32)
    boxes = np.minimum(target["boxes"][chosen] * scale, np.array(size * 2, np.float32))
    columns, rows = _nearest(width, size[0]), _nearest(height, size[1])
    windows, crops = np.zeros((len(chosen), 4), np.int64), [np.zeros(0, np.uint8)]
    for window, box, index in zip(windows, boxes, chosen, strict=True):
        window[:], crop = _cut(target["masks"][index], box, columns, rows)
        crops.append((crop[:, ::-1] if flip else crop).ravel())
    if flip:
        boxes, windows = _mirror(boxes, size[0]), _mirror(windows, size[0])
    return {
        "boxes": torch.from_numpy(boxes),
        "labels": torch.from_numpy(target["labels"][chosen]),
        "windows": torch.from_numpy(windows),
        "crops": torch.from_numpy(np.concatenate(crops)),
    }


def whole_masks(instances: TrainInstances, size: tuple[int, int]) -> np.ndarray:
    """(n, H, W) uint8 masks, 0 or 1, of an image of height and width `size`."""
    masks = np.zeros((len(instances["windows"]), *size), np.uint8)
    crops, start = instances["crops"].numpy(), 0
    for mask, window in zip(masks, instances["windows"].tolist(), strict=True):
        left, top, right, bottom = window
        end = start + (bottom - top) * (right - left)
        mask[top:bottom, left:right] = crops[start:end].reshape(bottom - top, right - left)
        start = end
    return masks


def _nearest(length: int, resized: int) -> np.ndarray:
    """(resized,) positions that a line of `length` pixels is resized from, centre to centre."""
    line = np.arange(length, dtype=np.float32)[None]
    return cv2.resize(line, (resized, 1), interpolation=cv2.INTER_NEAREST_EXACT)[0].astype(np.int64)


def _cut(
    mask: np.ndarray, box: np.ndarray, columns: np.ndarray, rows: np.ndarray
) -> tuple[tuple[int, int, int, int], np.ndarray]:
    """Window x1 y1 x2 y2 of an object in the resized image, and the mask (h, w) inside it.

    Args:
        mask: (H, W) uint8, not resized.
        box: (4,) of the object in the resized image.
        columns, rows: the positions in the mask that the image's are resized from.
    """
    left, top, width, height = cv2.boundingRect(mask)
    x = _widened(*np.searchsorted(columns, (left, left + width)).tolist(), len(columns))
    y = _widened(*np.searchsorted(rows, (top, top + height)).tolist(), len(rows))
    first, last = rows[y][[0, -1]]
    crop = mask[first : last + 1].take(columns[x], axis=1).take(rows[y] - first, axis=0)
    if not crop.any():
        limits = len(columns) - 1, len(rows) - 1
        column, row = np.minimum((box[:2] + box[2:]) / 2, limits).astype(int).tolist()
        x, y = _widened(column, column + 1, len(columns)), _widened(row, row + 1, len(rows))
        crop = np.zeros((y.stop - y.start, x.stop - x.start), np.uint8)
        crop[row - y.start, column - x.start] = 1
    return (x.start, y.start, x.stop, y.stop), crop


def _widened(start: int, end: int, length: int) -> slice:
    """A range and one pixel more on either side, inside 0..length."""
    return slice(max(0, start - 1), min(length, end + 1))


def _mirror(boxes: np.ndarray, width: int) -> np.ndarray:
    """(n, 4) boxes x1 y1 x2 y2 of an image `width` pixels wide, mirrored left to right."""
    mirrored = boxes.copy()
    mirrored[:, [0, 2]] = width - boxes[:, [2, 0]]
    return mirrored
