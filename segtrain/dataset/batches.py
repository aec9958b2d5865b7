"""Samples -> batches."""

import numpy as np
import torch
from torch import Tensor

from segtrain.contracts import (
    EvalBatch,
    InstanceEvalBatch,
    InstanceTarget,
    InstanceTrainBatch,
    TrainBatch,
    TrainInstances,
    TrueInstances,
)
from segtrain.masks import encode


def collate_crops(samples: list[tuple[np.ndarray | str, ...]]) -> TrainBatch:
    """Stacks crops as they lie in memory: the (N, 3, H, W) view is channels_last without a copy.

    Args:
        samples: image, mask, the colour matrix where it is to be applied yet, and name.
    """
    images, masks, *colours, names = zip(*samples, strict=True)
    batch: TrainBatch = {
        "image": torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
        "mask": torch.from_numpy(np.stack(masks)),
        "name": list(names),
    }
    if colours:
        batch["colours"] = torch.from_numpy(np.stack(colours[0]))
    return batch


def collate_images(samples: list[tuple[np.ndarray, np.ndarray, str]]) -> EvalBatch:
    """Keeps each image's own size."""
    images, masks, names = zip(*samples, strict=True)
    return {
        "image": [_image_tensor(image) for image in images],
        "mask": [torch.from_numpy(_writeable(mask)) for mask in masks],
        "name": list(names),
    }


def collate_objects(samples: list[tuple[np.ndarray, TrainInstances, str]]) -> InstanceTrainBatch:
    """Keeps each image's own size."""
    images, targets, names = zip(*samples, strict=True)
    return {
        "image": [_image_tensor(image) for image in images],
        "target": list(targets),
        "name": list(names),
    }


def collate_instances(samples: list[tuple[np.ndarray, InstanceTarget, str]]) -> InstanceEvalBatch:
    """Keeps each image's own size; masks become run-length codes."""
    images, targets, names = zip(*samples, strict=True)
    return {
        "image": [_image_tensor(image) for image in images],
        "target": [_truth(target) for target in targets],
        "name": list(names),
    }


def _truth(target: InstanceTarget) -> TrueInstances:
    _, height, width = target["masks"].shape
    return {
        "boxes": target["boxes"],
        "labels": target["labels"],
        "crowd": target["crowd"],
        "area": target["area"],
        "codes": encode(target["masks"]),
        "size": (height, width),
        "image_id": target["image_id"],
    }


def _image_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(_writeable(image)).permute(2, 0, 1)


def _writeable(array: np.ndarray) -> np.ndarray:
    """A copy of an array that lies in a read-only file, the array itself otherwise."""
    return array if array.flags.writeable else array.copy()
