"""detectron2's test of detectors, as docs/inference.md gives it, against its own code.

references/detectron2_detections.npz holds what `find_top_rpn_proposals`, `Box2BoxTransform`,
`fast_rcnn_inference` and `detector_postprocess` make of the outputs that the heads below have for
an image of 240x321 pixels; background is the last class there. Masks are packed bits.
"""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import composed

from segtrain.architecture.instance.rpn import RegionProposals
from segtrain.architecture.instance.two_stage import View, find_boxes
from segtrain.assembly import make
from segtrain.configuration.checking import checked
from segtrain.masks import codes_of, decode, paste

REFERENCE = Path(__file__).parent / "references" / "detectron2_detections.npz"
PAGE = Path(__file__).parents[2] / "docs" / "inference.md"
OVERRIDES = re.search(r"^\| detectron2, instances \| `(.+)` \|$", PAGE.read_text(), re.MULTILINE)
SIZE = (240, 321)
K = 80


class Heads:
    """A detector whose heads' outputs follow a rule."""

    def __init__(self):
        self.rpn = RegionProposals(
            in_channels=1, finest_stride=4, anchor_sizes=[32, 64, 128, 256, 512],
            aspect_ratios=[0.5, 1.0, 2.0], positive_iou=0.7, negative_iou=0.3, samples=256,
            positive_fraction=0.5, pre_nms={"train": 2000, "test": 1000},
            post_nms={"train": 1000, "test": 1000}, nms_iou=0.7,
        ).eval()  # fmt: skip
        self.rpn.score = self.score
        self.drawn = np.random.RandomState(0)
        self.seen = []
        self.to_scores, self.to_deltas = (
            torch.tensor(np.random.RandomState(seed).standard_normal(shape)).float()
            for seed, shape in ((1, (4, 1 + K)), (2, (4, 1 + K, 4)))
        )

    def look(self, images):
        self.seen = [tuple(image.shape[1:]) for image in images]
        sides = [-(-side // 32) * 32 for side in self.seen[0]]
        maps = [torch.zeros(1, 1, *(side // stride for side in sides)) for stride in (4, 8, 16, 32)]
        return View(maps, maps, self.seen)

    def score(self, x):
        count = 3 * x.shape[2] * x.shape[3]
        objectness = self.drawn.standard_normal(count)
        deltas = self.drawn.standard_normal((count, 4)) * 0.5
        return torch.tensor(objectness).float()[None], torch.tensor(deltas).float()[None]

    def box(self, maps, boxes):
        places = torch.cat(boxes) / 60
        deltas = torch.cos(torch.einsum("rc,ckd->rkd", places, self.to_deltas))
        return 4 * torch.sin(places @ self.to_scores), deltas

    def find_boxes(self, view):
        return find_boxes(self, view)

    def find_masks(self, view, boxes, labels):
        cells = (torch.arange(28) + 0.5) / 28
        phase = (boxes[0].sum(1) / 90 + labels[0])[:, None, None]
        rows, columns = cells[None, :, None], cells[None, None, :]
        return [(4 * torch.sin(5 * rows + phase) + 4 * torch.cos(4 * columns - phase)).sigmoid()]


@pytest.fixture(scope="module")
def found():
    overrides = [*shlex.split(OVERRIDES[1]), "inference.short_sides=[200]",
                 "inference.long_side=333"]  # fmt: skip
    node = checked("train", composed("experiment=mask_rcnn_coco2017", *overrides))["inference"]
    heads = Heads()
    with torch.no_grad():
        (result,) = make(node)(heads, [torch.zeros(3, *SIZE, dtype=torch.uint8)])
    assert heads.seen == [(200, 268)]
    return result


@pytest.fixture(scope="module")
def expected():
    with np.load(REFERENCE) as content:
        masks = np.unpackbits(content["masks"], axis=-1, count=SIZE[1])
        return {**{key: content[key] for key in ("boxes", "scores", "labels")}, "masks": masks}


def test_boxes_scores_and_labels_are_detectron2s(found, expected):
    assert np.array_equal(found["labels"].numpy(), expected["labels"])
    np.testing.assert_allclose(found["scores"].numpy(), expected["scores"], atol=1e-5)
    np.testing.assert_allclose(found["boxes"].numpy(), expected["boxes"], atol=1e-3)


def test_masks_are_detectron2s(found, expected):
    codes = codes_of(found, SIZE, 0.5)
    masks = decode(codes, SIZE)
    assert np.mean(masks != expected["masks"]) <= 1e-5
    coarse = decode(paste(found["masks"].numpy(), found["boxes"].numpy(), SIZE, 0.5), SIZE)
    assert np.mean(coarse != expected["masks"]) > 1e-4  # that is what frames are for
