"""Samples -> batches."""

import numpy as np
import torch
from torch import Tensor

from segtrain.contracts import EvalBatch, InstanceBatch, InstanceTarget, TrainBatch


def collate_crops(samples: list[tuple[np.ndarray, np.ndarray, str]]) -> TrainBatch:
    """Stacks crops as they lie in memory: the (N, 3, H, W) view is channels_last without a copy."""
    images, masks, names = zip(*samples, strict=True)
    return {
        "image": torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
        "mask": torch.from_numpy(np.stack(masks)),
        "name": list(names),
    }


def collate_images(samples: list[tuple[np.ndarray, np.ndarray, str]]) -> EvalBatch:
    """Keeps each image's own size."""
    images, masks, names = zip(*samples, strict=True)
    return {
        "image": [_image_tensor(image) for image in images],
        "mask": [torch.from_numpy(_writeable(mask)) for mask in masks],
        "name": list(names),
    }


def collate_instances(samples: list[tuple[np.ndarray, InstanceTarget, str]]) -> InstanceBatch:
    """Keeps each image's own size; arrays of the targets become tensors."""
    images, targets, names = zip(*samples, strict=True)
    return {
        "image": [_image_tensor(image) for image in images],
        "target": [
            {
                key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
                for key, value in target.items()
            }
            for target in targets
        ],
        "name": list(names),
    }


def _image_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(_writeable(image)).permute(2, 0, 1)


def _writeable(array: np.ndarray) -> np.ndarray:
    """A copy of an array that lies in a read-only file, the array itself otherwise."""
    return array if array.flags.writeable else array.copy()
