"""How others prepare training samples: what the loader is measured against."""

import random
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.transforms import ColorJitter
from torchvision.transforms import functional as TF

from segtrain.dataset.files import read_image, read_mask
from segtrain.dataset.pairs import Pair
from segtrain.dataset.scale_crop import MEAN_RGB
from segtrain.label_set import VOID

JITTER = ("brightness", "contrast", "saturation", "hue")


class ReferencePipeline(Dataset):
    """PIL decode, resize the whole image, flip, crop, colour jitter, float normalise on the CPU.

    The steps of torchvision's `references/segmentation` presets with the same crop, scale range,
    flip and jitter strengths as ours.
    """

    def __init__(self, pairs: list[Pair], settings: dict, length: int) -> None:
        self.pairs = pairs
        self.crop = tuple(settings["crop_size"])
        self.scale_range = settings["scale_range"]
        self.flip = settings["flip"]
        self.jitter = ColorJitter(*(settings[name] for name in JITTER))
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        pair = self.pairs[index % len(self.pairs)]
        image, mask = Image.open(pair.image).convert("RGB"), open_mask(pair.mask)
        scale = random.uniform(*self.scale_range)
        size = [round(image.height * scale), round(image.width * scale)]
        image = TF.resize(image, size)
        mask = TF.resize(mask, size, interpolation=TF.InterpolationMode.NEAREST)
        if random.random() < self.flip:
            image, mask = TF.hflip(image), TF.hflip(mask)
        padding = [0, 0, max(0, self.crop[1] - size[1]), max(0, self.crop[0] - size[0])]
        image, mask = TF.pad(image, padding), TF.pad(mask, padding, fill=255)
        top = random.randint(0, image.height - self.crop[0])
        left = random.randint(0, image.width - self.crop[1])
        image = self.jitter(TF.crop(image, top, left, *self.crop))
        mask = TF.crop(mask, top, left, *self.crop)
        tensor = TF.convert_image_dtype(TF.pil_to_tensor(image), torch.float32)
        tensor = TF.normalize(tensor, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        return tensor, torch.as_tensor(np.array(mask), dtype=torch.int64)


class AlbumentationsPipeline(Dataset):
    """albumentations' usual order: resize the whole image, pad, crop, flip, jitter; uint8 out.

    Decoding, label mapping and strengths are ours, so that the order makes the difference.
    """

    def __init__(self, pairs: list[Pair], settings: dict, length: int) -> None:
        height, width = settings["crop_size"]
        low, high = settings["scale_range"]
        steps = [
            A.RandomScale((low - 1, high - 1), interpolation=cv2.INTER_LINEAR, p=1.0),
            A.PadIfNeeded(
                height, width, border_mode=cv2.BORDER_CONSTANT, fill=MEAN_RGB, fill_mask=VOID
            ),
            A.RandomCrop(height, width),
            A.HorizontalFlip(p=settings["flip"]),
        ]
        if any(settings[name] for name in JITTER):
            steps.append(A.ColorJitter(*(settings[name] for name in JITTER), p=1.0))
        self.compose = A.Compose(steps)
        self.pairs = pairs
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        pair = self.pairs[index % len(self.pairs)]
        sample = self.compose(image=read_image(pair.image), mask=read_mask(pair.mask))
        return sample["image"], sample["mask"]


def open_mask(path: str) -> Image.Image:
    """A mask file as Pillow's users open it; MATLAB files as an image of their values."""
    return Image.fromarray(read_mask(path)) if Path(path).suffix == ".mat" else Image.open(path)
