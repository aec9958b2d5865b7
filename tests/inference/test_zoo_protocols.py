"""The protocols of public checkpoints, as docs/inference.md gives them, against their own codes.

references/<code>_<protocol>_<picture>.png are the labels that each project's code found in the
pictures, with the network below in place of its own: mmsegmentation's transforms, segmentors and
SegTTAModel (multiscale as its 0.x releases resized: the bounds times the ratio), semseg's
tool/test.py, PyTorch-Encoding's MultiEvalModule, detectron2's ResizeShortestEdge and
sem_seg_postprocess, and the lines of deeplab-pytorch's main.py that resize scores.
"""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import composed
from PIL import Image
from torch import nn
from torchvision.transforms.functional import resize

from segtrain.architecture.blocks import Normalize
from segtrain.assembly import make
from segtrain.configuration.checking import checked
from segtrain.inference.resizing import fitted, resized

REFERENCES = Path(__file__).parent / "references"
PAGE = Path(__file__).parents[2] / "docs" / "inference.md"
SECTION = PAGE.read_text().partition("## Protocols of public checkpoints")[2]
ROW = re.compile(r"^\| (.+?) \| `(inference=.+?)` \|$", re.MULTILINE)
DOCUMENTED = {name: shlex.split(overrides) for name, overrides in ROW.findall(SECTION)}
PICTURES = {
    "voc": "voc2012/VOCdevkit/VOC2012/JPEGImages/2007_000033.jpg",
    "camvid": "camvid/val/0016E5_07959.jpg",
    "cityscapes": "cityscapes/leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png",
}
SIX = "inference.scales=[0.5,0.75,1.0,1.25,1.5,1.75]"
# Of which row of the page, what else is set, and whether the network aligns corners.
PROTOCOLS = {
    "mmseg_whole": ("mmseg", [], False),
    "mmseg_whole_multiscale": ("mmseg", [SIX, "inference.flip=true"], False),
    "mmseg_whole1024": ("mmseg", ["inference.size={short:1024,long:2048}"], False),
    "mmseg_slide": ("mmseg, windows", [], False),
    "mmseg_slide_multiscale": ("mmseg, windows", [SIX, "inference.flip=true"], False),
    "mmseg_slide769": (
        "mmseg, windows",
        ["inference.size={short:1024,long:2048}", "inference.window.crop_size=[769,769]",
         "inference.window.stride=[513,513]", "inference.align_scores=true"],
        True,
    ),
    "semseg": ("semseg", [], True),
    "semseg_multiscale": ("semseg", [SIX], True),
    "semseg_713": (
        "semseg",
        ["inference.size={long:2048}", "inference.window.crop_size=[713,713]",
         "inference.window.stride=[476,476]"],
        True,
    ),
    "encoding": ("PyTorch-Encoding", ["inference.scales=[1.0]"], True),
    "encoding_multiscale": ("PyTorch-Encoding", [], True),
    "detectron2": ("detectron2", [], False),
    "deeplab": ("deeplab-pytorch", [], False),
}  # fmt: skip
CASES = sorted(path.stem for path in REFERENCES.glob("*.png"))
LONG = {"encoding_multiscale_camvid", "semseg_multiscale_camvid", "semseg_713_cityscapes"}


class Net(nn.Module):
    """Three convolutions of stride 2, whose weights follow a rule."""

    WIDTHS = (3, 8, 12, 6)

    def __init__(self, align_corners):
        super().__init__()
        self.align_corners = align_corners
        self.backbone = nn.Module()
        self.backbone.output_stride = 8
        self.backbone.normalize = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        self.weights = []
        for number, (inner, outer) in enumerate(zip(self.WIDTHS, self.WIDTHS[1:], strict=False)):
            k = np.arange(outer * inner * 9, dtype=np.float64)
            weight = np.sin((number + 1) * 1.7 * k + 0.3 * k * k % 6.283)
            weight *= 2 * (2 / (inner * 9)) ** 0.5
            self.weights.append(torch.tensor(weight.reshape(outer, inner, 3, 3)).float())
        self.bias = torch.tensor([2, -1, -0.7, -8, -2.9, -0.5])

    @torch.no_grad()
    def forward(self, image):
        x = self.backbone.normalize(image)
        for weight in self.weights[:-1]:
            x = F.conv2d(x, weight, stride=2, padding=1).relu()
        return {"logits": F.conv2d(x, self.weights[-1], self.bias, stride=2, padding=1)}


def node_of(row, more=()):
    """The inference node of a row of the page; what else is set takes the place of the row's."""
    keys = {override.partition("=")[0] for override in more}
    kept = [override for override in DOCUMENTED[row] if override.partition("=")[0] not in keys]
    return checked("train", composed(*kept, *more))["inference"]


def picture(root, name):
    return np.array(Image.open(root / PICTURES[name]).convert("RGB"))


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.slow] if case in LONG else []) for case in CASES],
)
def test_labels_are_those_of_the_projects_own_code(real_data, case):
    protocol, _, name = case.rpartition("_")
    row, more, align_corners = PROTOCOLS[protocol]
    image = torch.from_numpy(picture(real_data, name)).permute(2, 0, 1)
    (scores,) = make(node_of(row, more))(Net(align_corners), [image])
    expected = np.array(Image.open(REFERENCES / f"{case}.png"))
    assert np.mean(scores.argmax(0).numpy() == expected) >= 0.9999


def test_every_protocol_has_a_reference():
    assert {case.rpartition("_")[0] for case in CASES} == set(PROTOCOLS)
    semantic = {name for name, row in DOCUMENTED.items() if row[0] != "inference=detect"}
    assert {row for row, _, _ in PROTOCOLS.values()} | {"torchvision"} == semantic


def test_torchvisions_references_see_the_same_picture(real_data):
    node = node_of("torchvision")
    pixels = picture(real_data, "voc")
    expected = np.array(resize(Image.fromarray(pixels), 520))
    size = fitted(pixels.shape[:2], node["size"], rounding=node["rounding"])
    seen, _ = resized([torch.from_numpy(pixels).permute(2, 0, 1)], size, node["resampling"])
    assert np.array_equal(seen[0].permute(1, 2, 0).numpy(), expected)
