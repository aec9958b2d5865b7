import numpy as np
import pytest
import torch

from segtrain.loss.pixel import CrossEntropy, OhemCrossEntropy

WEIGHTS = [0.5, 2.0, 1.0, 3.0]


def scene():
    torch.manual_seed(0)
    logits = 2 * torch.randn(2, 4, 5, 6)
    target = torch.randint(0, 4, (2, 5, 6), dtype=torch.uint8)
    target[0, :3] = 255
    return logits, target


def slow_ohem(logits, target, threshold, min_kept, weights):
    """NumPy, pixel by pixel -> sum, weight, mask of the kept pixels."""
    losses = {}
    for (n, y, x), label in np.ndenumerate(target):
        if label != 255:
            scores = np.exp(logits[n, :, y, x].astype(np.float64))
            losses[n, y, x] = -np.log(scores[label] / scores.sum())
    total = norm = 0.0
    kept = np.zeros(target.shape, bool)
    for image in range(len(target)):
        own = {pixel: loss for pixel, loss in losses.items() if pixel[0] == image}
        for rank, pixel in enumerate(sorted(own, key=own.get, reverse=True)):
            hard = threshold is not None and np.exp(-losses[pixel]) < threshold
            if hard or rank < min_kept * len(own):
                kept[pixel] = True
                total += weights[target[pixel]] * losses[pixel]
                norm += weights[target[pixel]]
    return total, norm, kept


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize(
    ("threshold", "min_kept"),
    [(0.3, 0.01), (0.3, 0.9), (0.01, 0.25), (None, 0.25), (None, 1.0), (1.0, 0.01)],
)
def test_ohem_equals_slow_reference(threshold, min_kept, weights):
    logits, target = scene()
    logits.requires_grad_()
    total, weight = OhemCrossEntropy(threshold, min_kept, weights, 255)(logits, target)
    expected, norm, kept = slow_ohem(
        logits.detach().numpy(), target.numpy(), threshold, min_kept, weights or [1.0] * 4
    )
    assert total.dtype == weight.dtype == torch.float32
    assert total.item() == pytest.approx(expected, rel=1e-5)
    assert weight.item() == pytest.approx(norm, rel=1e-6)
    total.backward()
    assert ((logits.grad != 0).any(1).numpy() == kept).all()


def test_ohem_takes_both_rules_in_every_image():
    """Each rule alone decides somewhere; an easy image keeps its share beside a hard one."""
    logits, target = scene()
    target[:] = 0
    logits[0, 0] += 20
    _, by_threshold = OhemCrossEntropy(0.5, 0.01, None, 255)(logits, target)
    _, by_both = OhemCrossEntropy(0.5, 0.5, None, 255)(logits, target)
    _, _, hard = slow_ohem(logits.numpy(), target.numpy(), 0.5, 0.01, [1.0] * 4)
    assert hard[0].sum() == 1  # the one pixel that the share keeps of an easy image
    assert hard[1].sum() > 15
    assert by_threshold == hard.sum()
    assert by_both == 15 + hard[1].sum()


def test_ohem_keeps_exactly_the_share_among_equals():
    target = torch.zeros(1, 4, 5, dtype=torch.long)
    total, weight = OhemCrossEntropy(None, 0.25, None, 255)(torch.zeros(1, 4, 4, 5), target)
    assert weight == 5
    torch.testing.assert_close(total, 5 * torch.tensor(4.0).log())


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_ohem_of_all_pixels_is_cross_entropy(weights):
    logits, target = scene()
    mined = OhemCrossEntropy(None, 1.0, weights, 255)(logits, target)
    plain = CrossEntropy(weights, 0.0, 255)(logits, target)
    torch.testing.assert_close(mined, plain, check_dtype=False)  # plain counts in integers


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("threshold", [None, 0.7])
def test_ohem_of_void_is_zero_with_zero_gradient(threshold, weights):
    logits = torch.randn(1, 4, 3, 3, requires_grad=True)
    target = torch.full((1, 3, 3), 255)
    total, weight = OhemCrossEntropy(threshold, 0.1, weights, 255)(logits, target)
    total.backward()
    assert total == 0
    assert weight == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("min_kept", [0.0, 1.5])
def test_ohem_rejects_what_is_no_share(min_kept):
    with pytest.raises(ValueError, match="min_kept"):
        OhemCrossEntropy(None, min_kept, None, 255)


@pytest.mark.parametrize("loss", [CrossEntropy(WEIGHTS, 0.1, 255),
                                  OhemCrossEntropy(None, 0.3, WEIGHTS, 255),
                                  OhemCrossEntropy(0.4, 0.2, None, 255)])  # fmt: skip
def test_images_add_up(loss):
    """So that a batch can be computed in parts, by one process or by several."""
    logits, target = scene()
    whole = loss(logits, target)
    parts = [loss(logits[n : n + 1], target[n : n + 1]) for n in range(2)]
    for index in range(2):
        torch.testing.assert_close(whole[index], parts[0][index] + parts[1][index])


def test_separable_tells_whether_pixels_can_be_summed():
    logits, target = scene()
    for loss in (CrossEntropy(WEIGHTS, 0.1, 255), OhemCrossEntropy(None, 0.3, WEIGHTS, 255)):
        whole = loss(logits, target)
        parts = [loss(logits[:, :, rows], target[:, rows]) for rows in (slice(2), slice(2, None))]
        same = torch.allclose(whole[0], parts[0][0] + parts[1][0])
        assert same == loss.separable
