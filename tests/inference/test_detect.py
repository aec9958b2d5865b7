import numpy as np
import pytest
import torch
from torchvision.ops import box_iou, nms

from segtrain.configuration.validation import validate
from segtrain.errors import UserError
from segtrain.inference import resizing
from segtrain.inference.detect import Candidates, Detect, Frame, merge_masks, voters
from segtrain.values import Node


class Recorded:
    """A network whose views are the images themselves, and whose objects stand in fixed places.

    Boxes and masks follow from what it is shown, so what inference does with them can be told.
    """

    def __init__(self, boxes, scores, mask=None):
        self.boxes, self.scores = boxes, scores  # of the unscaled image: (r, K, 4), (r, K)
        self.mask = torch.rand(8, 8) if mask is None else mask
        self.seen = []
        self.size = None

    def look(self, images):
        self.seen.append(images)
        return images

    def mirrored(self, view):
        return bool(view[0][0, 0, 0] > view[0][0, 0, -1])  # images get brighter to the right

    def find_boxes(self, view):
        height, width = view[0].shape[1:]
        scale = torch.tensor([width / self.size[1], height / self.size[0]] * 2)
        boxes = self.boxes * scale
        if self.mirrored(view):
            left, top, right, bottom = boxes.unbind(-1)
            boxes = torch.stack([width - right, top, width - left, bottom], -1)
        return [(boxes, self.scores)] * len(view)

    def find_masks(self, view, boxes, labels):
        mask = self.mask.flip(1) if self.mirrored(view) else self.mask
        return [mask.expand(len(own), *mask.shape) for own in boxes]


def ramp(height=40, width=60):
    return torch.arange(width).mul(4).expand(3, height, width).to(torch.uint8)


def network(boxes, scores):
    found = Recorded(torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores))
    found.size = (40, 60)
    return found


PLAIN = {
    "short_sides": [40], "long_side": 1000, "flip": False, "min_score": 0.05, "nms_iou": 0.5,
    "max_detections": 100, "box_voting": None, "mask_voting": None,
}  # fmt: skip


def detect(model, image, **changes):
    return Detect(**{**PLAIN, **changes})(model, [image])[0]


def boxes_of_classes(count=30, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    corner = rng.random((count, classes, 2)) * [30, 20]
    boxes = np.concatenate([corner, corner + 4 + rng.random((count, classes, 2)) * 20], 2)
    return boxes.tolist(), (rng.random((count, classes)) ** 2).astype(np.float32).tolist()


def test_candidates_are_suppressed_class_by_class():
    boxes, scores = boxes_of_classes()
    got = detect(network(boxes, scores), ramp(), max_detections=20)
    expected = []
    for label in range(3):
        own = torch.tensor(boxes)[:, label].float()
        sure = torch.tensor(scores)[:, label]
        own, sure = own[sure > 0.05], sure[sure > 0.05]
        expected += [(float(sure[i]), label, own[i].tolist()) for i in nms(own, sure, 0.5)]
    expected = sorted(expected, reverse=True)[:20]
    assert got["labels"].tolist() == [label for _, label, _ in expected]
    torch.testing.assert_close(got["scores"], torch.tensor([score for score, _, _ in expected]))
    torch.testing.assert_close(got["boxes"], torch.tensor([box for *_, box in expected]))


@pytest.mark.parametrize("short_sides", [[40], [80], [30, 60, 90]])
@pytest.mark.parametrize("flip", [False, True])
def test_every_view_leads_to_the_same_boxes_and_masks(short_sides, flip):
    """Views of one scene agree, so that together they find what one does."""
    boxes, scores = boxes_of_classes()
    model = network(boxes, scores)
    model.mask = torch.rand(8, 8)
    plain = detect(model, ramp())
    got = detect(model, ramp(), short_sides=short_sides, flip=flip)
    torch.testing.assert_close(got["scores"], plain["scores"])
    torch.testing.assert_close(got["boxes"], plain["boxes"], atol=1e-3, rtol=0)
    torch.testing.assert_close(got["masks"], plain["masks"])


def test_views_are_resized_by_the_shorter_side():
    model = network([[[1.0, 1, 9, 9]]], [[0.9]])
    detect(model, ramp(), short_sides=[20, 80], long_side=90)
    assert [tuple(images[0].shape[1:]) for images in model.seen] == [(20, 30), (60, 90)]
    assert resizing.fitted((2000, 3), {"short": 800, "long": 1333}, rounding="down") == (1333, 1)


def test_images_of_one_size_share_a_look_and_do_not_mix():
    model = network([[[1.0, 1, 9, 9]]], [[0.9]])
    images = [ramp(), ramp(40, 50), ramp()]
    results = Detect(**PLAIN)(model, images)
    assert [len(images) for images in model.seen] == [2, 1]
    assert len(results) == 3


def test_nothing_found_is_empty():
    got = detect(network([[[1.0, 1, 9, 9]]], [[0.01]]), ramp(), box_voting=0.5, mask_voting=0.5)
    assert [len(got[key]) for key in ("boxes", "scores", "labels", "masks")] == [0] * 4
    assert got["masks"].shape[1:] == (8, 8)


def test_voted_boxes_are_weighted_means():
    boxes, scores = boxes_of_classes()
    got = detect(network(boxes, scores), ramp(), box_voting=0.6)
    plain = detect(network(boxes, scores), ramp())
    for number, (box, label) in enumerate(zip(plain["boxes"], plain["labels"], strict=True)):
        total, weight = torch.zeros(4), 0.0
        for own, sure in zip(boxes, scores, strict=True):
            candidate = torch.tensor(own[label])
            near = box_iou(box[None], candidate[None]).item() >= 0.6
            if sure[label] > 0.05 and near:
                total += sure[label] * candidate
                weight += sure[label]
        torch.testing.assert_close(got["boxes"][number], total / weight, atol=1e-3, rtol=1e-4)


def test_voted_masks_keep_their_places():
    """Candidates with masks of ones: the vote is the share of candidates that cover a cell."""
    masks = torch.ones(2, 4, 4)
    boxes = torch.tensor([[0.0, 0, 8, 8], [4, 0, 12, 8]])
    votes = torch.tensor([[0.75, 0.25]])
    (got,) = merge_masks(masks, boxes, votes, torch.tensor([[0.0, 0, 8, 8]]))
    torch.testing.assert_close(got[:, 0], torch.full((4,), 0.75))
    torch.testing.assert_close(got[:, 3], torch.full((4,), 1.0))


def test_a_mask_that_votes_alone_is_unchanged():
    mask = torch.rand(1, 6, 6)
    box = torch.tensor([[3.0, 4, 17, 9]])
    torch.testing.assert_close(merge_masks(mask, box, torch.ones(1, 1), box), mask)


@pytest.mark.parametrize("flip", [False, True])
def test_mask_voting_over_equal_views_changes_nothing(flip):
    """Far-apart objects, each seen once a view: all that vote for a mask are its own views."""
    boxes = [[[2.0, 2, 16, 16]], [[30, 8, 55, 30]]]
    model = network(boxes, [[0.9], [0.5]])
    got = detect(model, ramp(), flip=flip, short_sides=[40, 80], mask_voting=0.5, box_voting=0.5)
    plain = detect(model, ramp())
    torch.testing.assert_close(got["masks"], plain["masks"], atol=1e-4, rtol=0)
    torch.testing.assert_close(got["boxes"], plain["boxes"], atol=1e-3, rtol=0)


def test_candidates_of_another_class_have_no_vote():
    kept = Candidates(torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([0.9]), torch.tensor([1]),
                      torch.tensor([0]))  # fmt: skip
    found = Candidates(torch.tensor([[0.0, 0, 9, 9]] * 2), torch.tensor([0.9, 0.8]),
                       torch.tensor([1, 2]), torch.tensor([0, 0]))  # fmt: skip
    assert voters(kept, found, 0.5).tolist() == [[1.0, 0.0]]


def test_frames_lead_there_and_back():
    frame = Frame((2.0, 0.5), True, 120)
    boxes = torch.tensor([[3.0, 4, 30, 50]])
    assert frame.to_view(boxes).tolist() == [[60.0, 2.0, 114.0, 25.0]]
    torch.testing.assert_close(frame.to_image(frame.to_view(boxes)), boxes)


def test_voted_boxes_are_as_exact_under_autocast():
    boxes, scores = boxes_of_classes()
    expected = detect(network(boxes, scores), ramp(), box_voting=0.6)
    with torch.autocast("cpu", torch.bfloat16):
        got = detect(network(boxes, scores), ramp(), box_voting=0.6)
    torch.testing.assert_close(got["boxes"], expected["boxes"])


def test_voting_on_masks_may_be_stricter_than_on_boxes():
    """Voted boxes may overlap no candidate so much; votes are those of the box before."""
    boxes = [[[10.0, 10, 30, 30]], [[16, 10, 36, 30]]]
    got = detect(network(boxes, [[0.9], [0.8]]), ramp(), box_voting=0.4, mask_voting=0.9)
    assert len(got["boxes"]) == 1
    assert torch.isfinite(got["masks"]).all()


@pytest.mark.parametrize(
    "changes", [{"short_sides": 64}, {"short_sides": []}, {"short_sides": [0]}, {"nms_iou": 1.5},
                {"box_voting": 1.0}, {"min_score": -1}],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(changes):
    node = {"_target_": "segtrain.inference.detect.Detect", **PLAIN, **changes}
    with pytest.raises(UserError, match=f"inference.{next(iter(changes))}="):
        validate(Node, node, "inference")
