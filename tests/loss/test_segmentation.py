import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import composed
from processes import on_two_processes
from torch import nn

from segtrain.assembly import make as build
from segtrain.configuration.checking import checked
from segtrain.configuration.folder import options
from segtrain.errors import UserError
from segtrain.loss import segmentation
from segtrain.loss.pixel import CrossEntropy
from segtrain.loss.segmentation import SegmentationLoss


def make(class_weights=None, label_smoothing=0.0, **changes):
    def pixel(ignore_index):
        return CrossEntropy(class_weights, label_smoothing, ignore_index)

    settings = {"region": None, "aux_weight": 0.4, "region_weight": 1.0, "presence_weight": 0.2,
                "resize": "logits", "normalize": True}  # fmt: skip
    return SegmentationLoss(pixel, **(settings | changes), ignore_index=255)


def outputs(logits, align_corners=False, **more):
    return {"logits": logits, "align_corners": align_corners, **more}


def slow_cross_entropy(logits, target, weights):
    """NumPy, pixel by pixel, over the valid ones."""
    total = norm = 0.0
    for (n, y, x), label in np.ndenumerate(target):
        if label == 255:
            continue
        scores = logits[n, :, y, x].astype(np.float64)
        log_p = scores[label] - scores.max() - np.log(np.exp(scores - scores.max()).sum())
        total -= weights[label] * log_p
        norm += weights[label]
    return total / norm


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0, 3.0]])
def test_equals_slow_reference(weights):
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 5, 6)
    target = torch.randint(0, 4, (2, 5, 6), dtype=torch.uint8)
    target[0, :3] = 255
    loss = make(weights)(outputs(logits), target)["main"]
    expected = slow_cross_entropy(logits.numpy(), target.numpy(), weights or [1.0] * 4)
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_void_pixels_change_nothing():
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 4, 4)
    target = torch.randint(0, 3, (1, 4, 4))
    alone = make()(outputs(logits), target)["main"]
    wide = torch.cat([logits, torch.randn(1, 3, 4, 4)], dim=3)
    padded = torch.cat([target, torch.full((1, 4, 4), 255)], dim=2)
    torch.testing.assert_close(make()(outputs(wide), padded)["main"], alone)


def test_all_void_is_zero_with_zero_gradient():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    for weights in (None, [1.0, 2.0, 3.0]):
        loss = make(weights)(outputs(logits), torch.full((1, 8, 8), 255))["main"]
        loss.backward()
        assert loss.item() == 0
        assert (logits.grad == 0).all()


def test_auxiliary_term_is_weighted():
    torch.manual_seed(0)
    logits, target = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 8, 8))
    terms = make(aux_weight=0.25)(outputs(logits, aux=logits), target)
    torch.testing.assert_close(terms["aux"], 0.25 * terms["main"])


def test_softmax_is_float32_under_autocast():
    logits = (100 * torch.randn(1, 3, 4, 4)).bfloat16()
    target = torch.randint(0, 3, (1, 4, 4))
    with torch.autocast("cpu", torch.bfloat16):
        loss = make()(outputs(logits), target)["main"]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, make()(outputs(logits.float()), target)["main"])


def _share(rank, port, queue):
    import torch.distributed as dist

    dist.init_process_group("gloo", f"tcp://localhost:{port}", rank=rank, world_size=2)
    logits, target = _halves()[rank]
    logits.requires_grad_()
    make()(outputs(logits), target)["main"].backward()
    queue.put((rank, logits.grad.numpy()))
    dist.barrier()
    dist.destroy_process_group()


def _halves():
    torch.manual_seed(1)
    logits, target = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    target[0, 1:] = 255  # one process has 8 valid pixels, the other 64
    return [(logits[:1].clone(), target[:1]), (logits[1:].clone(), target[1:])]


def test_two_processes_average_over_all_their_valid_pixels():
    gradients = on_two_processes(_share)
    (first, first_target), (second, second_target) = _halves()
    joint = torch.cat([first, second]).requires_grad_()
    make()(outputs(joint), torch.cat([first_target, second_target]))["main"].backward()
    for rank in range(2):
        averaged = torch.from_numpy(gradients[rank]) / 2  # as data-parallel training does
        torch.testing.assert_close(averaged, joint.grad[rank : rank + 1])


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0]])
def test_working_image_by_image_changes_no_gradient(align_corners, weights):
    """Against the plain way: resize the whole batch, average over its valid pixels."""
    torch.manual_seed(0)
    logits = torch.randn(3, 3, 5, 4, requires_grad=True)
    target = torch.randint(0, 3, (3, 33, 27), dtype=torch.uint8)
    target[1, 5:] = 255
    make(weights)(outputs(logits, align_corners), target)["main"].mul(3).backward()
    got, logits.grad = logits.grad, None
    resized = F.interpolate(logits, (33, 27), mode="bilinear", align_corners=align_corners)
    weight = None if weights is None else torch.tensor(weights)
    expected = F.cross_entropy(resized, target.long(), weight, ignore_index=255)
    expected.mul(3).backward()
    torch.testing.assert_close(make(weights)(outputs(logits, align_corners), target)["main"],
                               expected)  # fmt: skip
    torch.testing.assert_close(got, logits.grad)


@pytest.mark.parametrize("align_corners", [False, True])
def test_labels_are_shrunk_to_the_scores(align_corners):
    """DeepLabv2's way: the nearest label of each cell, and one term for every scale."""
    torch.manual_seed(0)
    logits, small = torch.randn(2, 3, 5, 5), torch.randn(2, 3, 3, 3)
    target = torch.randint(0, 3, (2, 33, 33), dtype=torch.uint8)
    target[0, :9] = 255
    terms = make(resize="labels")(outputs(logits, align_corners, scales=[logits, small]), target)
    assert set(terms) == {"main", "scale0", "scale1"}
    for name, scores in (("main", logits), ("scale0", logits), ("scale1", small)):
        side = scores.shape[2]
        at = [round(i * 32 / (side - 1)) if align_corners else round((i + 0.5) * 33 / side - 0.5)
              for i in range(side)]  # fmt: skip
        labels = target[:, at][:, :, at].long()
        expected = F.cross_entropy(scores, labels, ignore_index=255)
        torch.testing.assert_close(terms[name], expected)


def test_unnormalised_loss_sums_over_pixels():
    """As Caffe's: the sum over valid pixels, the mean over images."""
    logits, target = torch.randn(2, 3, 6, 6), torch.randint(0, 3, (2, 6, 6))
    target[0, 0] = 255
    got = make(normalize=False)(outputs(logits), target)["main"]
    expected = F.cross_entropy(logits, target, ignore_index=255, reduction="sum") / 2
    torch.testing.assert_close(got, expected)


def test_presence_loss_asks_which_classes_each_image_shows():
    """EncNet section 3.2: binary cross-entropy a class and image; void is no class."""
    presence = torch.randn(2, 3)
    target = torch.zeros(2, 4, 4, dtype=torch.uint8)
    target[1] = 2
    target[1, 0] = 255
    terms = make()(outputs(torch.randn(2, 3, 4, 4), presence=presence), target)
    shows = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])
    p = presence.sigmoid()
    expected = -(shows * p.log() + (1 - shows) * (1 - p).log()).mean()
    torch.testing.assert_close(terms["presence"], 0.2 * expected)


SEMANTIC = [name for name in options("loss") if "pixel" in composed(f"loss={name}")["loss"]]


@pytest.mark.parametrize("name", SEMANTIC)
def test_every_loss_learns_and_has_no_gradient_where_all_is_void(name):
    config = composed(f"loss={name}")["loss"]
    overlaps = "multilabel" in config["_target_"]
    loss = build(config, **({} if overlaps else {"ignore_index": 255}))
    logits = torch.zeros(2, 3, 4, 4, requires_grad=True)
    target = torch.ones(2, 16, 16, dtype=torch.uint8)
    if overlaps:  # void nowhere, the first class all over
        target = torch.stack([torch.zeros_like(target), target], 3)
    first = sum(loss(outputs(logits), target).values())
    first.backward()
    with torch.no_grad():
        logits -= 0.1 * logits.grad.sign()
    assert sum(loss(outputs(logits), target).values()) < first
    logits.grad = None
    total = sum(loss(outputs(logits), torch.full_like(target, 255)).values())
    total.backward()
    assert total == 0
    assert not logits.grad.any()


def test_unknown_way_to_resize():
    with pytest.raises(UserError, match=r"loss.resize=mask: expected one of logits, labels"):
        checked("train", composed("loss.resize=mask"))


class Plain(nn.Module):
    """A pixel loss of somebody's own, as simple as it can be."""

    def forward(self, logits, target):
        return F.cross_entropy(logits, target.long(), reduction="sum"), torch.tensor(target.numel())


def test_a_pixel_loss_needs_no_more_than_forward(monkeypatch):
    monkeypatch.setattr(segmentation, "LARGE", 0)
    outputs = {"logits": torch.randn(2, 3, 4, 4, requires_grad=True), "align_corners": False}
    target = torch.randint(0, 3, (2, 8, 8), dtype=torch.uint8)
    settings = {"region": None, "aux_weight": 0.4, "region_weight": 1.0, "presence_weight": 0.2,
                "resize": "logits", "normalize": True, "ignore_index": 255}  # fmt: skip
    own = SegmentationLoss(lambda ignore_index: Plain(), **settings)(outputs, target)["main"]
    ours = SegmentationLoss(lambda ignore_index: CrossEntropy(None, 0.0, 255), **settings)
    torch.testing.assert_close(own, ours(outputs, target)["main"])
    with pytest.raises(UserError, match="Plain has no method 'weighted'"):
        SegmentationLoss(lambda ignore_index: Plain(), **settings, form="strips")
    with pytest.raises(UserError, match="Plain has no method 'of_losses'"):
        SegmentationLoss(lambda ignore_index: Plain(), **settings, form="fused")


def test_unknown_form():
    with pytest.raises(UserError, match="loss.form=strip: expected one of whole, strips, fused or"):
        checked("train", composed("loss.form=strip"))
