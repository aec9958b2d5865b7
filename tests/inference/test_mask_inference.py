"""Instances and panoptic segments of mask classification, against the authors' rules, slowly."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import EomtImageProcessor, Mask2FormerImageProcessor
from transformers.models.eomt.modeling_eomt import EomtForUniversalSegmentationOutput
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerForUniversalSegmentationOutput,
)

from segtrain.architecture.blocks import Normalize
from segtrain.errors import UserError
from segtrain.inference import queries
from segtrain.inference.masks import MaskInference
from segtrain.inference.panoptic import PanopticInference

THINGS = frozenset({0, 2})
LOOK = {"size": None, "least_size": None, "fill": "mean", "rounding": "nearest",
        "resampling": "antialiased"}  # fmt: skip


class Net(nn.Module):
    """Says the same of every image: Q random queries of K classes, whose masks are discs."""

    def __init__(self, seed=0, count=12, classes=4, cells=(16, 24), sure=4.0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.backbone = nn.Module()
        self.backbone.normalize = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        self.classes = torch.randn(count, classes + 1, generator=generator) * sure
        down, right = (torch.linspace(0, 1, side) for side in cells)
        top, left, radius = torch.rand(3, count, 1, 1, generator=generator)
        distance = (down[:, None] - top) ** 2 + (right - left) ** 2
        self.masks = 5 - 5 * distance / (0.1 + 0.3 * radius) ** 2
        self.seen = None

    def queries(self, images):
        self.seen = images
        count = len(images)
        return {
            "class_logits": self.classes.expand(count, -1, -1),
            "mask_logits": self.masks.expand(count, -1, -1, -1),
        }


def image(height, width):
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


def panoptic(**changed):
    settings = {"object_threshold": 0.6, "overlap_threshold": 0.6, "max_detections": 100,
                "things": THINGS}  # fmt: skip
    return PanopticInference(**(LOOK | settings | changed))


def resized(masks, size):
    return F.interpolate(masks[None], size, mode="bilinear", align_corners=False)[0]


def slow_segments(classes, masks, things, object_threshold, overlap_threshold):
    """The map and (class, score) of its segments, query by query, of masks at the image's size."""
    probabilities = classes.softmax(1)
    kept = [
        (probabilities[q].max().item(), probabilities[q].argmax().item(), masks[q].sigmoid())
        for q in range(len(classes))
        if probabilities[q].argmax() < classes.shape[1] - 1
        and probabilities[q].max() > object_threshold
    ]
    found, segments, stuff = torch.zeros(masks.shape[1:], dtype=torch.int32), [], {}
    if not kept:
        return found, segments
    winner = torch.stack([score * mask for score, _, mask in kept]).argmax(0)
    for query, (score, label, mask) in enumerate(kept):
        won, shown = winner == query, mask >= 0.5
        if not (won & shown).any() or won.sum() / shown.sum() < overlap_threshold:
            continue
        if label in stuff:
            found[won & shown] = stuff[label]
            continue
        segments.append((label, score))
        if label not in things:
            stuff[label] = len(segments)
        found[won & shown] = len(segments)
    return found, segments


@pytest.mark.parametrize("values", [2**24, 3000])  # all masks at once, and some after others
@pytest.mark.parametrize("seed", range(6))
def test_segments_follow_the_authors_rules(seed, values, monkeypatch):
    monkeypatch.setattr(queries, "VALUES", values)
    net = Net(seed)
    (found,) = panoptic()(net, [image(30, 41)])
    masks = resized(resized(net.masks, (30, 41)), (30, 41))
    expected, segments = slow_segments(net.classes, masks, THINGS, 0.6, 0.6)
    assert torch.equal(found["map"], expected)
    assert found["labels"].tolist() == [label for label, _ in segments]
    assert found["scores"].tolist() == pytest.approx([score for _, score in segments])
    assert segments
    scores = torch.einsum("qk,qhw->khw", net.classes.softmax(1)[:, :-1], masks.sigmoid())
    assert (found["semantic"] == scores.argmax(0)).float().mean() > 0.999
    assert found["semantic"].dtype == torch.uint8


def test_stuff_of_one_class_is_one_segment():
    net = Net(count=3, classes=2)
    net.classes = torch.tensor([[9.0, 0, 0], [9.0, 0, 0], [0, 9.0, 0]])
    net.masks = torch.full((3, 4, 6), -9.0)
    net.masks[0, :, :2] = net.masks[1, :, 2:4] = net.masks[2, :, 4:] = 9.0
    (merged,) = panoptic(things=frozenset({1}))(net, [image(4, 6)])
    assert merged["map"][0].tolist() == [1, 1, 1, 1, 2, 2]
    assert merged["labels"].tolist() == [0, 1]
    (apart,) = panoptic(things=frozenset({0, 1}))(net, [image(4, 6)])
    assert apart["map"][0].tolist() == [1, 1, 2, 2, 3, 3]


def test_no_query_is_sure():
    net = Net(sure=0.01)
    (found,) = panoptic()(net, [image(9, 12)])
    assert not found["map"].any()
    assert found["labels"].shape == found["scores"].shape == (0,)
    assert found["map"].dtype == torch.int32
    assert found["labels"].dtype == torch.int64


def slow_instances(classes, masks, count, things=None):
    """(score, class, mask) of the best pairs, best first."""
    probabilities = classes.softmax(1)[:, :-1]
    pairs = [(p.item(), q, k) for q, row in enumerate(probabilities) for k, p in enumerate(row)]
    found = []
    for probability, query, label in sorted(pairs, reverse=True)[:count]:
        mask = masks[query] > 0
        if (things is None or label in things) and mask.any():
            sure = masks[query].sigmoid()[mask].mean().item()
            found.append((probability * sure, label, mask))
    return sorted(found, key=lambda entry: -entry[0])


@pytest.mark.parametrize("values", [2**24, 3000])
@pytest.mark.parametrize("things", [None, THINGS])
def test_instances_are_the_best_pairs(things, values, monkeypatch):
    monkeypatch.setattr(queries, "VALUES", values)
    net = Net(3)
    net.masks[2] = -5.0  # shows nothing
    if things is None:
        (found,) = MaskInference(**LOOK, max_detections=20)(net, [image(30, 41)])
    else:
        (segments,) = panoptic(max_detections=20)(net, [image(30, 41)])
        found = segments["instances"]
    expected = slow_instances(net.classes, resized(net.masks, (30, 41)), 20, things)
    assert len(found["scores"]) == len(expected) > 3
    assert found["scores"].tolist() == pytest.approx([score for score, *_ in expected], abs=1e-5)
    assert found["labels"].tolist() == [label for _, label, _ in expected]
    assert torch.equal(found["masks"], torch.stack([mask for *_, mask in expected]))
    assert found["frames"] == "image"
    for box, mask in zip(found["boxes"].tolist(), found["masks"], strict=True):
        rows, columns = mask.nonzero().unbind(1)
        sides = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        assert box == [side.item() for side in sides]


def test_padding_is_seen_and_cut_away():
    net = Net(cells=(20, 20))
    look = {"size": {"long": 40}, "least_size": (40, 40), "fill": "black", "resampling": "pillow"}
    one = image(60, 80)
    (found,) = panoptic(**look)(net, [one])
    assert net.seen.shape == (1, 3, 40, 40)
    assert net.seen[:, :, :30].any()
    assert not net.seen[:, :, 30:].any()
    masks = resized(resized(net.masks, (40, 40))[:, :30], (60, 80))
    expected, _ = slow_segments(net.classes, masks, THINGS, 0.6, 0.6)
    assert torch.equal(found["map"], expected)
    panoptic(**(look | {"fill": "mean"}))(net, [one])
    assert net.seen[0, :, 30:].flatten(1).unique(dim=1).tolist() == [[124], [116], [104]]


def test_images_of_several_sizes_keep_their_order():
    net, images = Net(), [image(20, 30), image(12, 9), image(20, 30)]
    together = panoptic()(net, images)
    for one, found in zip(images, together, strict=True):
        assert found["map"].shape == one.shape[1:]
        assert torch.equal(found["map"], panoptic()(net, [one])[0]["map"])


def test_protocols_say_how_was_tested():
    size = {"short": 800, "long": 1333}
    own = panoptic(size=size).protocol
    assert own["inference"] == "panoptic"
    assert own["size"] == size
    assert own["object_threshold"] == 0.6
    assert MaskInference(**LOOK, max_detections=7).protocol["max_detections"] == 7
    with pytest.raises(UserError, match="inference.size"):
        panoptic(size={"height": 3})


def test_segments_and_classes_are_those_of_transformers():
    """EoMT's; where authors drop a share below the threshold, theirs drops one equal to it too."""
    net, size = Net(5, cells=(16, 16)), (64, 64)
    outputs = EomtForUniversalSegmentationOutput(
        class_queries_logits=net.classes[None], masks_queries_logits=net.masks[None],
        patch_offsets=[],
    )  # fmt: skip
    theirs = EomtImageProcessor(size={"shortest_edge": 64, "longest_edge": 64})
    (expected,) = theirs.post_process_panoptic_segmentation(
        outputs, [size], threshold=0.6, overlap_mask_area_threshold=0.6, stuff_classes=[1, 3]
    )
    (found,) = panoptic()(net, [image(*size)])
    assert torch.equal(found["map"], expected["segmentation"].int() + 1)
    segments = [segment["label_id"] for segment in expected["segments_info"]]
    assert found["labels"].tolist() == segments
    assert len(segments) > 2
    (classes,) = theirs.post_process_semantic_segmentation(outputs, [size])
    assert (found["semantic"] == classes).float().mean() > 0.999


def test_instances_are_those_of_transformers():
    """Mask2Former's, of all pairs; it numbers them, and knows 384 x 384 pixels alone."""
    net = Net(6, cells=(96, 96))
    outputs = Mask2FormerForUniversalSegmentationOutput(
        class_queries_logits=net.classes[None], masks_queries_logits=net.masks[None]
    )
    (expected,) = Mask2FormerImageProcessor().post_process_instance_segmentation(
        outputs, threshold=0.0, return_binary_maps=True
    )
    count = len(net.classes)
    (found,) = MaskInference(**LOOK, max_detections=count)(net, [image(384, 384)])
    scores = np.array([segment["score"] for segment in expected["segments_info"]])
    order = np.argsort(-scores, kind="stable")
    assert found["scores"].tolist() == pytest.approx(scores[order].tolist(), abs=1e-5)
    assert torch.equal(found["masks"].float(), expected["segmentation"][order.tolist()])
