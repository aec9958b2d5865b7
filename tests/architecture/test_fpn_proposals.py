"""FPN segment proposals against the formulas of the paper, place by place."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import composed
from torchvision.ops import roi_align

from segtrain.architecture.backbone import TimmBackbone
from segtrain.architecture.instance.fpn import batch_of, with_coarsest
from segtrain.architecture.instance.fpn_proposals import FPNProposals
from segtrain.assembly import make
from segtrain.dataset.instances import target_from_masks, training_objects
from segtrain.loss.detection import ProposalLoss

SCALES = [32, 64, 128, 256, 512]
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}


def network(**settings) -> FPNProposals:
    """A small one with lively heads, in evaluation."""
    torch.manual_seed(0)
    chosen = {"heads": [5, 7], "width": 16, "mask_size": 14, "samples": 128,
              "positive_fraction": 0.25, "padding": 1.25, "scales": SCALES} | settings  # fmt: skip
    backbone = TimmBackbone("test_resnet", "none", 32, False, None, {})
    model = FPNProposals(3, backbone, channels=8, **chosen).eval()
    for head in model.heads:
        for layer in (head.conv, head.masks, head.scores):
            torch.nn.init.normal_(layer.weight, std=0.3)
            torch.nn.init.normal_(layer.bias)
    return model


def picture(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


def target_of(masks: np.ndarray) -> dict[str, torch.Tensor]:
    """Training objects of masks (n, H, W)."""
    count, height, width = masks.shape
    target = target_from_masks(masks, [0] * count, np.zeros(count, bool), image_id=0)
    return training_objects(target, (width, height), flip=False)


def ellipses(count: int, height: int, width: int) -> np.ndarray:
    """(count, height, width) masks of all sizes; the last of them stands where the first does."""
    rng = np.random.default_rng(count)
    masks = np.zeros((count, height, width), np.uint8)
    for number, mask in enumerate(masks):
        x, y = rng.integers(0, width), rng.integers(0, height)
        axes = (2 ** rng.uniform(2, 7, 2)).astype(int).tolist()
        if number == 0:
            first = x, y, axes
        elif number == count - 1:
            x, y, axes = first
        cv2.ellipse(mask, (int(x), int(y)), axes, rng.uniform(0, 180), 0, 360, 1, -1)
    return masks


def dense(model: FPNProposals, images: list[torch.Tensor]) -> list[dict]:
    """Every place of the batch in order, with its scores and masks of all images."""
    batch = batch_of(images, model.backbone.normalize.mean)
    places = []
    for level, m in enumerate(with_coarsest(model.neck(model.backbone(batch)))):
        stride = (4 * 2**level,) * 2
        origin = 2 * 2 ** min(level, 3)  # a cell of P6 is that of P5 whose place it takes
        for number, head in enumerate(model.heads):
            hidden = F.conv2d(m, head.conv.weight, head.conv.bias,
                              padding=head.conv.weight.shape[2] // 2).relu()  # fmt: skip
            scores = F.conv2d(hidden, head.scores.weight, head.scores.bias)
            masks = F.conv2d(hidden, head.masks.weight, head.masks.bias)
            side = SCALES[level] * (1, 2**0.5)[number]
            for row, column in np.ndindex(*m.shape[2:]):
                places.append({
                    "side": side, "stride": stride,
                    "centre": (column * stride[1] + origin, row * stride[0] + origin),
                    "scores": scores[:, 0, row, column],
                    "masks": masks[:, :, row, column].unflatten(1, (head.mask_size,) * 2),
                })  # fmt: skip
    return places


def slow_assignment(places: list[dict], boxes: np.ndarray) -> list[int]:
    """The object of each place, or -1: section 6.1 and appendix A, one pair after another."""
    sides = sorted({place["side"] for place in places})
    own = [sides[np.argmin([abs(np.log(max(x2 - x1, y2 - y1) / side)) for side in sides])]
           for x1, y1, x2, y2 in boxes]  # fmt: skip
    result = []
    for place in places:
        best, winner = np.inf, -1
        for number, (x1, y1, x2, y2) in enumerate(boxes):
            x = (x1 + x2) / 2 - place["centre"][0]
            y = (y1 + y2) / 2 - place["centre"][1]
            near = abs(x) <= place["stride"][1] and abs(y) <= place["stride"][0]
            if own[number] == place["side"] and near and x**2 + y**2 < best:
                best, winner = x**2 + y**2, number
        result.append(winner)
    return result


def window_of(place: dict) -> list[float]:
    half = 1.25 * place["side"] / 2
    x, y = place["centre"]
    return [x - half, y - half, x + half, y + half]


@pytest.mark.parametrize(
    ("heads", "mask_size", "expected"),
    [([5], 14, 26_330_373), ([5, 7], 14, 29_643_210), ([5, 7], 28, 30_246_498)],
)
def test_parameters(heads, mask_size, expected):
    """ResNet-50 and its pyramid with 128 channels, of the layer lists in appendix A."""
    config = composed("architecture=fpn", "architecture.backbone.weights=none",
                      f"architecture.heads={heads}",
                      f"architecture.mask_size={mask_size}")  # fmt: skip
    with torch.device("meta"):
        model = make(config["architecture"], num_classes=80)
    assert sum(p.numel() for p in model.parameters()) == expected


def test_every_place_learns_what_the_slow_formula_says():
    """All places of two images of unlike sizes as samples: scores, targets, masks, in order."""
    model = network(samples=20_000, positive_fraction=1.0)
    sizes = (160, 480), (81, 97)
    images = [picture(*size) for size in sizes]
    masks = [ellipses(count, *size) for count, size in zip((40, 9), sizes, strict=True)]
    masks[0][5] = 1  # the whole image; others at its very edges
    masks[0][6:10] = 0
    masks[0][6, :, 477:] = masks[0][7, :, :2] = masks[0][8, :1, :70] = masks[0][9, 159:, :90] = 1
    targets = [target_of(m) for m in masks]
    with torch.no_grad():
        outputs = model(images, targets)
        places = dense(model, images)
    positives, negatives = [], []
    for number, target in enumerate(targets):
        for place, winner in zip(places, slow_assignment(places, target["boxes"].numpy()),
                                 strict=True):  # fmt: skip
            (negatives if winner < 0 else positives).append((number, place, winner))
    assert {place["side"] for _, place, _ in positives} >= {32, 32 * 2**0.5, 64, 128, 512}
    scores = torch.stack([place["scores"][n] for n, place, _ in positives + negatives])
    torch.testing.assert_close(outputs["objectness"], scores, **TOLERANCE)
    count = len(positives)
    assert outputs["objectness_target"].tolist() == [1.0] * count + [0.0] * len(negatives)
    logits = torch.stack([place["masks"][n] for n, place, _ in positives])
    torch.testing.assert_close(outputs["mask_logits"], logits, **TOLERANCE)
    for (number, place, winner), got in zip(positives, outputs["mask_target"], strict=True):
        whole = torch.from_numpy(masks[number][winner])[None, None].float()
        window = torch.tensor([window_of(place)])
        expected = roi_align(whole, [window], 14, aligned=True)[0, 0]
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


def test_mask_targets_are_shares_of_pixels():
    """Windows of 40 pixels with 20 cells lie on whole pixels: a target is a mean over 2x2."""
    model = network(heads=[5], mask_size=20, samples=20_000, positive_fraction=1.0)
    mask = np.zeros((1, 128, 128), np.uint8)
    cv2.ellipse(mask[0], (63, 58), (15, 8), 20, 0, 360, 1, -1)
    target = target_of(mask)
    with torch.no_grad():
        images = [picture(128, 128)]
        got = model(images, [target])["mask_target"]
        places = dense(model, images)
    winners = slow_assignment(places, target["boxes"].numpy())
    positives = [place for place, winner in zip(places, winners, strict=True) if winner == 0]
    assert 4 <= len(got) == len(positives) <= 9
    for place, found in zip(positives, got, strict=True):
        left, top, right, bottom = (int(edge) for edge in window_of(place))
        crop = mask[0, top:bottom, left:right].astype(np.float32)
        np.testing.assert_allclose(found, crop.reshape(20, 2, 20, 2).mean((1, 3)), atol=1e-5)


@pytest.mark.parametrize(("objects", "positives"), [(0, [0]), (1, range(1, 10)), (60, [32])])
def test_samples_of_an_image(objects, positives):
    """128 places, at most 32 of them positive, negatives fill up."""
    target = target_of(ellipses(objects, 128, 128))
    outputs = network()([picture(128, 128)], [target])
    found = int(outputs["objectness_target"].sum())
    assert found in positives
    assert len(outputs["objectness"]) == 128
    assert len(outputs["mask_logits"]) == len(outputs["mask_target"]) == found


def one_pixel() -> np.ndarray:
    masks = np.zeros((3, 64, 96), np.uint8)
    masks[0, 0, 0] = masks[1, 30, 40] = masks[2, 63, 95] = 1
    return masks


def long_and_thin() -> np.ndarray:
    masks = np.zeros((2, 64, 96), np.uint8)
    masks[0, 31] = masks[1, :, 95] = 1
    return masks


@pytest.mark.parametrize(
    "masks",
    [np.zeros((0, 64, 96), np.uint8), ellipses(300, 64, 96), one_pixel(), long_and_thin()],
    ids=["none", "300", "one pixel", "long"],
)
def test_hard_images_give_finite_gradients_everywhere(masks):
    model = network().train()
    outputs = model([picture(64, 96), picture(64, 96)], [target_of(masks)] * 2)
    terms = ProposalLoss(mask_weight=10.0)(outputs)
    assert all(term.isfinite() for term in terms.values())
    assert bool(terms["mask"] > 0) == bool(len(masks))
    sum(terms.values()).backward()
    assert not [
        n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]
    assert model.backbone.body.conv1[0].weight.grad.any()
    assert (outputs["mask_target"] >= 0).all()
    assert (outputs["mask_target"] <= 1).all()


def test_proposals_are_the_best_of_all_places():
    """In order, with the masks of their places, and none in the padding of a smaller image."""
    model = network()
    images = [picture(70, 131), picture(41, 58)]
    with torch.no_grad():
        places = dense(model, images)
        found = model.propose(images, 200)
    for number, (image, (windows, scores, masks)) in enumerate(zip(images, found, strict=True)):
        inside = [place for place in places if place["centre"][0] < image.shape[2]
                  and place["centre"][1] < image.shape[1]]  # fmt: skip
        inside.sort(key=lambda place: -place["scores"][number].item())
        best = inside[:200]
        assert len(inside) > 200
        assert len(windows) == 200
        expected = torch.stack([place["scores"][number] for place in best]).sigmoid()
        torch.testing.assert_close(scores, expected, **TOLERANCE)
        torch.testing.assert_close(windows, torch.tensor([window_of(place) for place in best]))
        expected = torch.stack([place["masks"][number] for place in best]).sigmoid()
        torch.testing.assert_close(masks, expected, **TOLERANCE)


def test_a_window_is_a_quarter_larger_than_its_scale():
    model = network()
    with torch.no_grad():
        ((windows, scores, _),) = model.propose([picture(64, 64)], 10_000)
    sides = windows[:, 2:] - windows[:, :2]
    octaves = [40.0, 80.0, 160.0, 320.0, 640.0]
    expected = torch.tensor(octaves + [side * 2**0.5 for side in octaves]).sort().values
    torch.testing.assert_close(sides[:, 0].round(decimals=3).unique(), expected, **TOLERANCE)
    torch.testing.assert_close(sides[:, 0], sides[:, 1])
    assert len(scores) == 2 * (16**2 + 8**2 + 4**2 + 2**2 + 1)  # every place there is


def test_a_tiny_image_may_have_no_place():
    with torch.no_grad():
        ((windows, scores, masks),) = network().propose([picture(1, 1)], 10)
    assert (len(windows), len(scores), masks.shape) == (0, 0, (0, 14, 14))
