"""mIoU by image and by class and image (Wang et al. 2023, arXiv 2310.19252, section 3).

One IoU an image and class, for the classes of the image's truth alone: a class that is predicted
where the image has none lowers the IoUs of the classes that it takes the pixels from.
"""

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from segtrain.metric.image_scores import ImageScores
from segtrain.metric.processes import fixed_point, in_split_order

WORST = 0.1  # of the images
BITS = 36  # of an IoU's fraction, with room for 134 million images


class PerImage(Metric):
    """mIoU^I, mIoU^C and the mIoU^I of the worst images.

    Args:
        num_classes: K.
    """

    full_state_update = False

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        zeros = torch.zeros(2, num_classes, dtype=torch.int64)
        self.add_state("classes", zeros, dist_reduce_fx="sum")  # sums of IoUs, and images
        self.images = ImageScores()

    def reset(self) -> None:
        """Before a split."""
        super().reset()
        self.images.reset()

    def update(self, counts: Tensor) -> None:
        """Adds an image by its matrix (K, K), rows truth, columns prediction."""
        hits, truth = counts.diagonal().double(), counts.sum(1)
        shown = truth > 0
        ious = (hits / (truth + counts.sum(0) - hits)).where(shown, 0.0)
        self.classes += torch.stack([fixed_point(ious, BITS), shown.long()])
        self.images.add([ious.sum() / shown.sum()])

    def compute(self) -> dict[str, float | None]:
        """The figures in 0..1, None where all is void; a collective call.

        `miou_i` is the mean over images of the mean over their classes; `miou_c` the mean over
        classes of the mean over the images that show them; `miou_i_worst` is `miou_i` of the
        tenth of the images, at least one, where it is the lowest (mIoU^I_q of the paper, q 10).
        """
        figures = np.sort(in_split_order(self.images.tolist()))  # NaN last
        figures = figures[: np.count_nonzero(~np.isnan(figures))]
        if not figures.size:
            return dict.fromkeys(("miou_i", "miou_c", "miou_i_worst"))
        sums, images = self.classes.double().cpu()
        worst = figures[: max(1, int(WORST * len(figures)))]
        return {
            "miou_i": figures.mean().item(),
            "miou_c": (sums / images / 2**BITS).nanmean().item(),
            "miou_i_worst": worst.mean().item(),
        }
