"""Mask R-CNN against torchvision's with the same weights."""

import numpy as np
import pytest
import torch
from conftest import composed
from torch import nn
from torchvision.io import read_image
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import MultiScaleRoIAlign, roi_align

from segtrain.architecture.blocks import batch_norms
from segtrain.architecture.instance.fpn import FeaturePyramid, batch_of, with_coarsest
from segtrain.architecture.instance.roi import RoIAlign, mask_targets, pool
from segtrain.architecture.weights import load_weights
from segtrain.assembly import make
from segtrain.dataset.instances import target_from_masks, training_objects
from segtrain.inference.detect import Detect
from segtrain.loss.detection import DetectionLoss
from segtrain.zoo.names.torchvision import renamed
from segtrain.zoo.recognition import with_epsilon

SIDE, LONG_SIDE = 192, 320


@pytest.fixture(scope="module")
def pair() -> tuple[nn.Module, nn.Module]:
    """torchvision's network, untrained, with outputs of ordinary size, and ours with its weights.

    In float64: else a last digit may decide which of two boxes is suppressed.
    """
    torch.manual_seed(0)
    theirs = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=SIDE, max_size=LONG_SIDE
    )
    with torch.no_grad():
        theirs.roi_heads.box_predictor.cls_score.weight.mul_(4)
        theirs.rpn.head.bbox_pred.weight.mul_(0.3)
        theirs.roi_heads.mask_predictor.mask_fcn_logits.weight.mul_(0.1)
    config = composed("architecture=mask_rcnn", "architecture.backbone.weights=none")
    ours = make(config["architecture"], num_classes=90)
    load_weights(ours, renamed(theirs.state_dict(), ours.state_dict()), "torchvision")
    return theirs.double().eval(), ours.double().eval()


def test_parameters(pair):
    """44,401,393 is published for batch norm without parameters of its own."""
    _, ours = pair
    frozen = {id(p) for norm in batch_norms(ours) for p in norm.parameters()}
    assert sum(p.numel() for p in ours.parameters() if id(p) not in frozen) == 44_401_393


def assert_same_detections(pair, image):
    theirs, ours = pair
    detect = Detect([SIDE], LONG_SIDE, False, 0.05, 0.5, 100, None, None)
    with torch.no_grad():
        expected = theirs([image.double() / 255])[0]
        (got,) = detect(ours, [image])
        pasted = paste_masks_in_image(got["masks"][:, None], expected["boxes"], image.shape[1:])
    assert len(expected["boxes"]) > 10
    scale = max(image.shape)
    torch.testing.assert_close(got["boxes"] / scale, expected["boxes"] / scale, atol=1e-4, rtol=0)
    torch.testing.assert_close(got["scores"], expected["scores"], atol=1e-4, rtol=0)
    assert torch.equal(got["labels"] + 1, expected["labels"])
    torch.testing.assert_close(pasted, expected["masks"], atol=1e-4, rtol=0)


def test_same_detections_on_a_real_image(pair, real_data):
    path = sorted((real_data / "coco_instances/images/val2017").glob("*.jpg"))[7]
    # torchvision does not smooth where it makes images smaller, so this one is made larger
    assert_same_detections(pair, read_image(str(path))[:, ::3, ::3])


@pytest.mark.slow
def test_same_detections_on_a_texture(pair):
    draw = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 256, (1, 3, 9, 9), generator=draw).float()
    image = nn.functional.interpolate(coarse, (97, 61), mode="bicubic").clamp(0, 255)[0].byte()
    assert_same_detections(pair, image)


def target_of(masks: np.ndarray, labels: list[int]) -> dict[str, torch.Tensor]:
    """Training objects of masks (n, H, W)."""
    count, height, width = masks.shape
    target = target_from_masks(masks, labels, np.zeros(count, bool), image_id=0)
    return training_objects(target, (width, height), flip=False)


def some_masks(height=320, width=416) -> np.ndarray:
    rng = np.random.default_rng(0)
    masks = np.zeros((4, height, width), np.uint8)
    masks[0, 10:100, 20:200] = rng.random((90, 180)) < 0.7
    masks[1, 200:, 300:] = 1
    masks[2, 50:60, :30] = 1
    masks[3, 150:300, 40:280] = np.tri(150, 240)
    return masks


def test_same_losses_for_the_same_anchors_and_regions(pair):
    """Sampling is switched off by asking for more than there are."""
    theirs, ours = pair
    everything = 10**6
    theirs.rpn.fg_bg_sampler.batch_size_per_image = ours.rpn.samples = everything
    theirs.roi_heads.fg_bg_sampler.batch_size_per_image = everything
    ours.sampling = (0.5, everything, 0.25)
    ours.rpn.pre_nms = ours.rpn.post_nms = {"train": 150, "test": 150}
    theirs.rpn._pre_nms_top_n = theirs.rpn._post_nms_top_n = {"training": 150, "testing": 150}
    theirs.transform.min_size = (320,)
    theirs.transform.max_size = 533
    theirs.train(), ours.train()
    for norm in (*batch_norms(theirs), *batch_norms(ours)):
        norm.eval()
    draw = torch.Generator().manual_seed(2)
    image = torch.randint(0, 256, (3, 320, 416), dtype=torch.uint8, generator=draw)
    masks, labels = some_masks(), [3, 7, 89, 0]
    target = target_of(masks, labels)
    target["boxes"] = target["boxes"].double()
    full = {"boxes": target["boxes"], "labels": target["labels"] + 1,
            "masks": torch.from_numpy(masks)}  # fmt: skip
    try:
        expected = theirs([image.double() / 255], [full])
        got = DetectionLoss(anchor_beta=1 / 9, box_beta=1 / 9)(ours([image], [target]))
    finally:
        theirs.eval(), ours.eval()
    names = {
        "objectness": "loss_objectness", "anchor": "loss_rpn_box_reg", "class": "loss_classifier",
        "box": "loss_box_reg", "mask": "loss_mask",
    }  # fmt: skip
    for name, theirs_name in names.items():
        torch.testing.assert_close(got[name], expected[theirs_name], rtol=1e-4, atol=1e-5)


def test_weights_for_all_ids_fit_the_80_classes(pair):
    """Rows of used ids are taken in their order, background first."""
    theirs, _ = pair
    config = composed("architecture=mask_rcnn", "architecture.backbone.weights=none")
    ours = make(config["architecture"], num_classes=80)
    state = renamed(theirs.state_dict(), ours.state_dict())
    load_weights(ours, state, "torchvision")
    rows = [0, *(raw for raw in sorted(composed_coco_ids()))]
    scores = theirs.roi_heads.box_predictor.cls_score.weight
    assert torch.equal(ours.box.classifier["scores"].weight, scores[rows])
    boxes = theirs.roi_heads.box_predictor.bbox_pred.bias.view(91, 4)
    assert torch.equal(ours.box.classifier["boxes"].bias.view(81, 4), boxes[rows])


def composed_coco_ids() -> list[int]:
    from segtrain.dataset.labels import COCO

    return list(COCO.raw_to_train)


def test_weights_for_batch_norm_without_epsilon():
    norm = nn.BatchNorm2d(5, eps=0.0).eval()
    nn.init.uniform_(norm.weight), nn.init.normal_(norm.running_mean)
    norm.running_var = torch.tensor([1e-7, 1e-5, 1e-3, 1.0, 50.0])
    other = nn.BatchNorm2d(5).eval()
    other.load_state_dict(with_epsilon(norm.state_dict(), 0.0, 1e-5))
    x = torch.randn(2, 5, 3, 3)
    torch.testing.assert_close(other(x), norm(x), rtol=1e-5, atol=1e-5)


def test_regions_are_pooled_from_the_level_of_their_size():
    draw = torch.Generator().manual_seed(0)
    maps = [
        torch.randn(2, 3, 256 // stride, 384 // stride, generator=draw) for stride in (4, 8, 16, 32)
    ]
    corners = torch.rand(40, 2, generator=draw) * 200
    sides = torch.cat(
        [torch.rand(38, 2, generator=draw) * 400, torch.tensor([[112.0] * 2, [224.0] * 2])]
    )
    boxes = torch.cat([corners, corners + sides], 1)
    names = [str(level) for level in range(4)]
    reference = MultiScaleRoIAlign(names, 7, sampling_ratio=2)
    split = [boxes[:15], boxes[15:]]
    expected = reference(dict(zip(names, maps, strict=True)), split, [(256, 384)] * 2)
    torch.testing.assert_close(pool(maps, [4, 8, 16, 32], split, 7), expected)


@pytest.mark.parametrize("ratio", [0, 2])
def test_aligned_regions_are_read_between_the_centres_of_cells(ratio):
    """Of a map that is its cells' centres in pixels, each bin's mean is the bin's own centre."""
    stride, size = 8, 7
    centres = stride * (torch.arange(30.0) + 0.5)
    m = torch.stack([centres.expand(30, 30), centres[:, None].expand(30, 30)])[None]
    box = torch.tensor([[31.0, 52.0, 150.0, 137.0]])
    steps = (torch.arange(size) + 0.5) / size
    x, y = (box[0, axis] + steps * (box[0, axis + 2] - box[0, axis]) for axis in (0, 1))
    got = pool([m], [stride], [box], size, RoIAlign(aligned=True, sampling_ratio=ratio))
    expected = torch.stack([x.expand(size, size), y[:, None].expand(size, size)])
    torch.testing.assert_close(got[0], expected)
    shifted = pool([m], [stride], [box], size, RoIAlign(aligned=False, sampling_ratio=ratio))
    torch.testing.assert_close(shifted[0], expected + stride / 2)


@pytest.mark.parametrize("aligned", [False, True])
def test_mask_targets_are_those_of_the_whole_mask(aligned):
    masks = some_masks()
    target = target_of(masks, [0, 1, 2, 3])
    matched = torch.tensor([3, 0, 0, 1, 2, 3])
    boxes = torch.tensor([
        [30.0, 140, 290, 310], [0, 0, 416, 320], [25.5, 20.2, 60.1, 70.9], [280.3, 190, 416, 320],
        [0, 40, 35, 65], [100, 200, 100.5, 200.5],
    ])  # fmt: skip
    whole = torch.from_numpy(masks)[:, None].float()
    numbered = torch.cat([matched[:, None].float(), boxes], 1)
    expected = roi_align(whole, numbered, 28, aligned=aligned)[:, 0]
    torch.testing.assert_close(mask_targets(target, matched, boxes, 28, aligned), expected)


def test_pyramid_adds_from_the_top():
    torch.manual_seed(0)
    pyramid = FeaturePyramid([2, 3, 4], channels=5, norm="none")
    maps = [torch.randn(1, c, 16 // 2**i, 8 // 2**i) for i, c in enumerate((2, 3, 4))]
    a, b, c = (lateral(m) for lateral, m in zip(pyramid.laterals, maps, strict=True))
    b = b + c.repeat_interleave(2, 2).repeat_interleave(2, 3)
    a = a + b.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = [output(m) for output, m in zip(pyramid.outputs, (a, b, c), strict=True)]
    for got, wanted in zip(pyramid(maps), expected, strict=True):
        torch.testing.assert_close(got, wanted)
    coarsest = with_coarsest(maps)[-1]
    assert torch.equal(coarsest, maps[-1][:, :, ::2, ::2])


def test_batches_are_padded_with_the_mean():
    images = [torch.full((3, 20, 40), 7, dtype=torch.uint8), torch.full((3, 33, 10), 9.5)]
    mean = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    batch = batch_of(images, mean)
    assert batch.shape == (2, 3, 64, 64)
    assert (batch[0, :, :20, :40] == 7).all()
    assert (batch[1, :, :33, :10] == 9.5).all()
    assert (batch[0, :, 20:] == mean[0]).all()
    assert (batch[1, :, :, 10:] == mean[0]).all()
