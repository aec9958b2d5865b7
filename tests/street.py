"""Stand-ins for panoptic networks: two cars, one of them half hidden, on a road below the sky."""

import numpy as np
import torch

from segtrain.label_set import LabelSet
from segtrain.picture import Picture
from segtrain.prediction import PanopticPrediction
from segtrain.segments import CROWD, pack

SKY, ROAD, CAR = 0, 1, 2
STREET = LabelSet(
    ("sky", "road", "car", "person"),
    ((70, 130, 180), (128, 64, 128), (0, 0, 142), (220, 20, 60)),
    {187: SKY, 100: ROAD, 3: CAR, 1: 3, 0: None},
    things=frozenset({CAR, 3}),
)
SIZE = (40, 60)


def street(size: tuple[int, int] = SIZE) -> dict[str, torch.Tensor]:
    """What inference finds in a picture of any size: sky, road, two cars, a corner of nothing."""
    height, width = size
    numbers = torch.ones(size, dtype=torch.int32)
    numbers[height // 2 :] = 2
    numbers[height // 4 : 3 * height // 4, : width // 3] = 3
    numbers[height // 4 : 3 * height // 4, width // 3 : width // 2] = 4
    numbers[:2, -4:] = 0
    labels = torch.tensor([SKY, ROAD, CAR, CAR])
    masks = torch.stack([numbers == 3, numbers == 4])
    boxes = torch.tensor([[0, height // 4, width // 3, 3 * height // 4],
                          [width // 3, height // 4, width // 2, 3 * height // 4]])  # fmt: skip
    return {
        "map": numbers,
        "labels": labels,
        "scores": torch.tensor([0.9, 0.8, 0.95, 0.6]),
        "semantic": torch.where(numbers > 0, labels[(numbers - 1).clamp(0)], SKY).byte(),
        "instances": {"boxes": boxes.float(), "scores": torch.tensor([0.95, 0.6]),
                      "labels": torch.tensor([CAR, CAR]), "masks": masks, "frames": "image"},
    }  # fmt: skip


def truth(size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W, 3) labels: as `street`, but one car for the two, a crowd of people and void."""
    found = street(size)
    classes = np.append(255, found["labels"].numpy())[found["map"].numpy()].astype(np.uint8)
    numbers = np.where(classes == CAR, 1, 0)
    classes[-6:, -10:], numbers[-6:, -10:] = 3, CROWD
    return pack(classes, numbers)


def prediction(size: tuple[int, int] = SIZE) -> PanopticPrediction:
    """Of a grey picture."""
    found = street(size)
    picture = Picture(np.full((*size, 3), 120, np.uint8), 1)
    return PanopticPrediction(
        picture, found["map"].numpy(), found["labels"].numpy(), found["scores"].numpy(), STREET, {}
    )


class Street:
    """An inference protocol that finds `street` in every picture, whatever the network."""

    task = "panoptic"
    protocol: dict = {"inference": "panoptic"}  # noqa: RUF012

    def __call__(self, model, images):
        return [street(tuple(image.shape[1:])) for image in images]
