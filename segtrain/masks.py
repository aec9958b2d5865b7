"""Masks of instances: COCO's compressed run-length codes, and pasting.

Shapes: n masks, H x W pixels of the image, h x w of a crop, M x M cells of a network's mask.
"""

import cv2
import numpy as np
from pycocotools import mask as rle
from torch import Tensor

from segtrain.contracts import AnyFrames, Detections


def encode(masks: np.ndarray) -> list[bytes]:
    """Codes of masks (n, H, W), bool or uint8 0 and 1: byte for byte those of pycocotools.

    pycocotools reads down the columns, for which whole images have to be transposed first; here
    only each mask's bounding box is.
    """
    masks = np.ascontiguousarray(masks).view(np.uint8)
    codes = []
    for mask in masks:
        left, top, width, height = cv2.boundingRect(mask)
        crop = mask[top : top + height, left : left + width]
        codes.append(encode_crop(crop, left, top, mask.shape))
    return codes


def encode_crop(crop: np.ndarray, left: int, top: int, size: tuple[int, int]) -> bytes:
    """Code of an image of `size` (H, W) that is zero outside a crop.

    Args:
        crop: (h, w) bool or uint8 0 and 1, which may be empty.
        left: column of the image at which the crop begins.
        top: its row.
        size: H and W; the crop lies inside.
    """
    height = crop.shape[0]
    bordered = np.zeros((crop.shape[1], height + 2), np.uint8)
    bordered[:, 1:-1] = crop.T
    columns = bordered.reshape(-1)
    # Where runs of ones begin and end, in turn: each column has zeros at both ends.
    edges = np.flatnonzero(columns[1:] != columns[:-1])
    edges += edges // (height + 2) * (size[0] - height - 2) + (left * size[0] + top)
    if height == size[0]:  # a run may go on in the next column
        joined = np.flatnonzero(edges[1:-1:2] == edges[2::2]) * 2 + 1
        edges = np.delete(edges, np.concatenate([joined, joined + 1]))
    bounds = np.zeros(len(edges) + 2, np.int64)
    bounds[1:-1] = edges
    bounds[-1] = size[0] * size[1]
    runs = bounds[1:] - bounds[:-1]
    if len(runs) > 1 and runs[-1] == 0:  # the last pixel is a one
        runs = runs[:-1]
    return rle.frPyObjects({"counts": runs, "size": list(size)}, *size)["counts"]


def decode(codes: list[bytes], size: tuple[int, int]) -> np.ndarray:
    """Masks (n, H, W) uint8, 0 or 1, of an image of `size` (H, W)."""
    masks = np.empty((len(codes), *size), np.uint8)
    for code, mask in zip(codes, masks, strict=True):
        cv2.transpose(rle.decode({"size": list(size), "counts": code}).T, dst=mask)
    return masks


def as_arrays(found: Detections) -> Detections:
    """What was found as arrays, numbers of fewer bits as float32."""
    return {
        key: (value.float() if value.is_floating_point() else value).cpu().numpy()
        if isinstance(value, Tensor)
        else value
        for key, value in found.items()
    }


def codes_of(
    found: Detections,
    size: tuple[int, int],
    threshold: float,
    chosen: np.ndarray | None = None,
    scale: tuple[float, float] = (1.0, 1.0),
) -> list[bytes]:
    """Codes of what a network found in an image, see `paste`.

    Args:
        found: tensors on any device, or arrays.
        size: H and W of the image.
        threshold: of the pixels that belong to an object.
        chosen: (m,) which detections, or (n,) bool; None for all.
        scale: what boxes are multiplied by, horizontally and vertically, where the network has seen
            the image at another size.
    """
    found = as_arrays(found)
    chosen = slice(None) if chosen is None else chosen
    boxes = found["boxes"][chosen] * np.float32([*scale, *scale])
    frames = found.get("frames", "whole_pixels")
    return paste(found["masks"][chosen], boxes, size, threshold, frames)


def paste(
    masks: np.ndarray,
    boxes: np.ndarray,
    size: tuple[int, int],
    threshold: float,
    frames: AnyFrames = "whole_pixels",
) -> list[bytes]:
    """Codes of a network's masks, stretched over their boxes and thresholded.

    With frames of whole pixels the geometry is that of torchvision's `paste_masks_in_image`: one
    more cell of zeros around the mask, the box larger in the same ratio, its corners cut to whole
    pixels, both of them inside. With exact ones it is that of detectron2's: masks are sampled where
    pixels have their centres. Only what is visible is computed.

    Args:
        masks: (n, M, M) float32 probabilities; or, where `frames` says so, (n, H, W) bool of the
            whole image, whose pixels stay what they are, or the nearest ones at another size.
        boxes: (n, 4) float32 x1 y1 x2 y2; they may be empty and may lie outside the image.
        size: H and W of the image.
        threshold: of the pixels that belong to the object, not negative: they are above it, or at
            least it where frames are exact.
        frames: how masks lie in their boxes.
    """
    if frames == "image":
        return encode(_fitted(masks, size))
    if frames == "exact":
        return [_sampled(*pair, size, threshold) for pair in zip(masks, boxes, strict=True)]
    cells = masks.shape[-1] + 2
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * (cells / masks.shape[-1])
    centre = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    frames = np.concatenate([centre - half, centre + half], 1).astype(np.int64).tolist()
    codes = []
    for mask, frame in zip(np.pad(masks, ((0, 0), (1, 1), (1, 1))), frames, strict=True):
        left, top = max(frame[0], 0), max(frame[1], 0)
        right, bottom = min(frame[2] + 1, size[1]), min(frame[3] + 1, size[0])
        if left < right and top < bottom:
            visible = _stretched(mask, frame, (left, top, right, bottom)) > threshold
        else:
            left, top, visible = 0, 0, np.zeros((0, 0), bool)
        codes.append(encode_crop(visible, left, top, size))
    return codes


def _fitted(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Masks (n, h, w) bool at `size`, by the nearest pixel."""
    if masks.shape[1:] == size:
        return masks
    resized = [cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
               for mask in masks.view(np.uint8)]  # fmt: skip
    return np.array(resized, np.uint8).reshape(-1, *size)


def _sampled(mask: np.ndarray, box: np.ndarray, size: tuple[int, int], threshold: float) -> bytes:
    """Code of the pixels whose centres are in the box and where the mask (M, M) has `threshold`."""
    if (box[2:] <= box[:2]).any():
        return encode_crop(np.zeros((0, 0), bool), 0, 0, size)
    first = np.maximum(np.ceil(box[:2] - 0.5), 0).astype(int)
    last = np.maximum(np.minimum(np.floor(box[2:] + 0.5), size[::-1]).astype(int), first)
    columns, rows = (
        _weights((np.arange(*span) + 0.5 - begin) * (len(mask) / (end - begin)) - 0.5, len(mask))
        for span, begin, end in zip(zip(first, last, strict=True), box[:2], box[2:], strict=True)
    )
    return encode_crop(rows @ mask @ columns.T >= threshold, int(first[0]), int(first[1]), size)


def _stretched(mask: np.ndarray, frame: list[int], window: tuple[int, int, int, int]) -> np.ndarray:
    """The part inside `window` of a mask (M, M) resized to its frame, whose corners both count."""
    left, top, right, bottom = window
    width, height = frame[2] - frame[0] + 1, frame[3] - frame[1] + 1
    if width * height <= 4 * (right - left) * (bottom - top):
        whole = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
        return whole[top - frame[1] : bottom - frame[1], left - frame[0] : right - frame[0]]
    rows = _interpolation(np.arange(top, bottom) - float(frame[1]), height, len(mask))
    columns = _interpolation(np.arange(left, right) - float(frame[0]), width, len(mask))
    return rows @ mask @ columns.T


def _interpolation(pixels: np.ndarray, side: int, cells: int) -> np.ndarray:
    """(p, cells) float32 weights of p pixels of a row of cells resized to `side` pixels."""
    return _weights(np.clip((pixels + 0.5) * (cells / side) - 0.5, 0, cells - 1), cells)


def _weights(position: np.ndarray, cells: int) -> np.ndarray:
    """(p, cells) float32 of bilinear interpolation at p positions, in cells from the first one."""
    distance = np.abs(position[:, None] - np.arange(cells))
    return np.maximum(1 - distance, 0).astype(np.float32)
