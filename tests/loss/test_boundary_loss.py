import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import composed

from segtrain.assembly import make
from segtrain.loss.boundary import WIDTH, boundaries, boundary_loss, labels_at_boundaries


def masks(*shape: int) -> torch.Tensor:
    """Blobs of four classes and of void, and one image of a single class."""
    coarse = torch.randint(0, 5, (shape[0], shape[1] // 4, shape[2] // 4)).float()
    mask = F.interpolate(coarse[:, None], shape[1:], mode="nearest")[:, 0].to(torch.uint8)
    mask[mask == 4] = 255
    mask[-1] = 2
    return mask


def slow_boundaries(mask: np.ndarray) -> np.ndarray:
    """MMSegmentation's: the lower of two pixels above each other, the left one of two side by side,
    the upper one of two aslant; dilated by OpenCV."""
    height, width = mask.shape
    edge = np.zeros((height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            for marked, other in (
                ((y + 1, x), (y, x)),
                ((y, x), (y, x + 1)),
                ((y, x), (y + 1, x + 1)),
                ((y, x + 1), (y + 1, x)),
            ):
                if max(marked[0], other[0]) < height and max(marked[1], other[1]) < width:
                    a, b = int(mask[marked]), int(mask[other])
                    edge[marked] |= a != b and 255 not in (a, b)
    return cv2.dilate(edge, np.ones((WIDTH, WIDTH), np.uint8))


def test_boundaries_are_where_classes_meet():
    torch.manual_seed(0)
    mask = masks(3, 24, 36)
    found = boundaries(mask, 255)
    assert found.dtype == torch.float32
    for image, edge in zip(mask.numpy(), found.numpy(), strict=True):
        assert np.array_equal(edge, slow_boundaries(image))
    assert 0 < found[0].mean() < 1
    assert not found[-1].any()


def test_boundaries_and_the_rest_weigh_the_same():
    torch.manual_seed(0)
    mask, logits = masks(2, 24, 36), torch.randn(2, 1, 24, 36)
    truth = boundaries(mask, 255).bool()
    losses = -torch.where(truth, logits[:, 0].sigmoid(), 1 - logits[:, 0].sigmoid()).log()
    share = truth.double().mean()
    expected = (1 - share) * losses[truth].sum() + share * losses[~truth].sum()
    found = boundary_loss(logits, mask, 255)
    assert found.item() == pytest.approx((expected / truth.numel()).item(), rel=1e-5)


def test_no_boundary_at_all():
    assert boundary_loss(torch.randn(1, 1, 8, 8), torch.zeros(1, 8, 8), 255) == 0


def test_labels_are_void_but_at_boundaries():
    logits = torch.tensor([[[[1.38, 1.39], [-5.0, 9.0]]]])  # 0.8 is 1.386
    labels = labels_at_boundaries(logits, torch.tensor([[[1, 2], [3, 255]]]), 255)
    assert labels.tolist() == [[[255, 2], [255, 255]]]


def slow_terms(outputs: dict, target: torch.Tensor, class_weights: torch.Tensor) -> dict:
    """PIDNet's four terms, from the resized scores."""
    size = target.shape[1:]
    logits, aux, edge = (
        F.interpolate(outputs[key], size, mode="bilinear", align_corners=True)
        for key in ("logits", "aux", "boundary")
    )

    def mean_of_hard(valid: torch.Tensor) -> torch.Tensor:
        losses = F.cross_entropy(logits, target.long(), ignore_index=255, reduction="none")
        hard = valid & (target != 255) & ((-losses).exp() < 0.9)
        weights = class_weights[target.long().clamp(max=3)] * hard
        return (losses * weights).sum() / weights.sum()

    every = torch.ones_like(target, dtype=torch.bool)
    return {
        "main": mean_of_hard(every),
        "aux": 0.4 * F.cross_entropy(aux, target.long(), class_weights, ignore_index=255),
        "boundary": 20 * boundary_loss(edge, target, 255),
        "at_boundary": mean_of_hard(edge[:, 0].sigmoid() > 0.8),
    }


@pytest.mark.parametrize("form", ["whole", "strips"])
def test_terms_of_pidnet(form):
    torch.manual_seed(0)
    weights = [0.5, 1.0, 2.0, 1.5]
    loss = make(composed("loss=boundary", f"loss.pixel.class_weights={weights}",
                         f"loss.form={form}")["loss"], ignore_index=255)  # fmt: skip
    shapes = {"logits": 4, "aux": 4, "boundary": 1}
    outputs = {key: (3 * torch.randn(2, k, 6, 9)).requires_grad_() for key, k in shapes.items()}
    target = masks(2, 48, 72)
    found = loss({**outputs, "align_corners": True}, target)
    expected = slow_terms(outputs, target, torch.tensor(weights))
    assert {key: value.item() for key, value in found.items()} == pytest.approx(
        {key: value.item() for key, value in expected.items()}, rel=1e-4
    )
    sum(found.values()).backward()
    assert all(output.grad.any() for output in outputs.values())


def test_all_pixels_of_the_auxiliary_head_count_or_the_hard_ones():
    torch.manual_seed(0)
    outputs = {"logits": torch.zeros(1, 4, 8, 8), "aux": 4 * torch.randn(1, 4, 8, 8),
               "align_corners": False}  # fmt: skip
    target = torch.randint(0, 4, (1, 8, 8))
    mined, whole = (
        make(composed("loss=ohem", f"loss.aux_mining={mining}")["loss"], ignore_index=255)
        for mining in ("true", "false")
    )
    plain = F.cross_entropy(outputs["aux"], target)
    assert whole(outputs, target)["aux"].item() == pytest.approx(0.4 * plain.item())
    assert mined(outputs, target)["aux"] > whole(outputs, target)["aux"]


def test_given_weights_divide_the_terms_of_a_part():
    """Of the auxiliary head by its own pixels, whose number the labels tell."""
    torch.manual_seed(0)
    loss = make(composed("loss=boundary")["loss"], ignore_index=255)
    outputs = {"logits": torch.randn(2, 4, 8, 8), "aux": torch.randn(2, 4, 8, 8),
               "boundary": 3 * torch.randn(2, 1, 8, 8), "align_corners": True}  # fmt: skip
    target = masks(2, 8, 8)
    assert not loss.weighs_by_labels
    weights = loss.weights(outputs, target)
    assert weights["aux"] == (target != 255).sum()
    alone, given = loss(outputs, target), loss(outputs, target, weights)
    assert {k: v.item() for k, v in given.items()} == pytest.approx(
        {k: v.item() for k, v in alone.items()}
    )
