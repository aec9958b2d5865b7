"""Small networks that were never trained, in run folders, and pictures and videos for them."""

from pathlib import Path

import cv2
import numpy as np
import torch
from conftest import composed, small_network
from PIL import Image
from torchvision.models import segmentation

from segtrain.assembly import build_task, make

SEMANTIC = ("architecture=deeplabv3_torchvision", "dataset=shapes")
DETECTOR = ("architecture=mask_rcnn", "dataset=shapes_instances")
PROPOSALS = ("architecture=fpn", "dataset=shapes_instances")
# With the segments of all queries, however unsure.
PANOPTIC = ("architecture=eomt", "dataset=shapes_panoptic", "inference=panoptic",
            "inference.object_threshold=0", "inference.overlap_threshold=0")  # fmt: skip
COMMAND = ["predict", "weights=torchvision/deeplabv3_resnet101", "input=dog.jpg", "classes=[dog]"]


class Topmost:
    """An inference protocol from outside the package: the class of each row's number."""

    task = "semantic"
    gives_probabilities = False
    protocol: dict = {}  # noqa: RUF012

    def __call__(self, model, images):
        return [torch.eye(8)[:, torch.arange(i.shape[1]) % 8, None].expand(8, -1, i.shape[2])
                for i in images]  # fmt: skip


def write_run(folder: Path, *chosen: str) -> Path:
    """A run folder with `checkpoints/best.ckpt`; its network's scores differ from pixel to pixel.

    `chosen` are SEMANTIC, DETECTOR, PROPOSALS or PANOPTIC, and more overrides.
    """
    chosen = chosen or SEMANTIC
    config = composed(*chosen[:2], *small_network(*chosen[:2]), *chosen[2:])
    torch.manual_seed(3)  # whose network knows five classes in the noise of the tests
    task = build_task(config, make(config["dataset"]["labels"]))
    with torch.no_grad():
        for name, parameter in task.model.named_parameters():
            if "classifier" in name:
                parameter.normal_(0, 0.05)
            if "quer" in name or "mask_mlp" in name:  # so that masks differ
                parameter.normal_(0, 1)
        task.model.train()
        for norm in task.model.modules():  # statistics of its own: signals vanish or explode else
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.momentum = 1.0
        if task.evaluation.task == "semantic":
            task.model(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8))
    state = {f"model.{key}": value for key, value in task.model.state_dict().items()}
    entry = {"config": config, "epochs": 0.0, "labels": task.labels.to_plain()}
    (folder / "checkpoints").mkdir(parents=True)
    content = {"state_dict": state, "global_step": 0, "segtrain": entry}
    torch.save(content, folder / "checkpoints" / "best.ckpt")
    return folder


def picture(path, seed=0, size=(64, 48)) -> Path:
    """A picture file with smooth random content."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def write_video(path, count=7, size=(64, 48)) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 5, size)
    for number in range(count):
        frame = np.full((size[1], size[0], 3), 200, np.uint8)
        cv2.circle(frame, (8 * number, 20), 9, (0, 0, 255), -1)
        writer.write(frame)
    writer.release()


def torchvisions_fcn(height: int, width: int) -> torch.nn.Module:
    """torchvision's FCN with random weights, and statistics of noise of this size."""
    torch.manual_seed(0)
    model = segmentation.fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(2, 3, height, width))
    return model
