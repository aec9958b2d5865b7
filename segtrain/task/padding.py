"""Images of instance sets as one batch, for networks that take no others."""

import torch
from torch import Tensor

from segtrain.contracts import InstanceTrainBatch, TrainInstances
from segtrain.dataset.scale_crop import MEAN_RGB
from segtrain.segments import TrueSegments


def padded(batch: InstanceTrainBatch) -> tuple[Tensor, list[TrueSegments]]:
    """Images (N, 3, H, W) uint8 of the largest height and width, and their objects' masks.

    Images are padded right and below with the mean colour; no object is there.
    """
    images = batch["image"]
    size = max(image.shape[1] for image in images), max(image.shape[2] for image in images)
    result = torch.empty(
        (len(images), 3, *size),
        dtype=torch.uint8,
        device=images[0].device,
        memory_format=torch.channels_last,
    )
    result.copy_(torch.tensor(MEAN_RGB, dtype=torch.uint8).view(3, 1, 1))
    for whole, image in zip(result, images, strict=True):
        whole[:, : image.shape[1], : image.shape[2]] = image
    return result, [segments_of(target, size) for target in batch["target"]]


def segments_of(objects: TrainInstances, size: tuple[int, int]) -> TrueSegments:
    """One image's objects, which may overlap, with masks of a height and width."""
    labels, crops, start = objects["labels"], objects["crops"].bool(), 0
    masks = torch.zeros(len(labels), *size, dtype=torch.bool, device=crops.device)
    for mask, (left, top, right, bottom) in zip(masks, objects["windows"].tolist(), strict=True):
        end = start + (bottom - top) * (right - left)
        mask[top:bottom, left:right] = crops[start:end].view(bottom - top, right - left)
        start = end
    return TrueSegments(masks, labels, torch.zeros_like(labels, dtype=torch.bool))
