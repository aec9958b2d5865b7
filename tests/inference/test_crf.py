from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from segtrain.assembly import make
from segtrain.benchmark.crf import blurred, generate, run_pydensecrf
from segtrain.configuration.folder import conf_dir
from segtrain.errors import UserError
from segtrain.inference.crf import DenseCRF
from segtrain.inference.crf_search import Grid, Setting, search_crf

CRF = DenseCRF(
    iterations=10, position_sigma=3, position_weight=3, bilateral_sigma=30, colour_sigma=10,
    bilateral_weight=4,
)  # fmt: skip
EXACT = replace(CRF, mode="exact")
MODES = pytest.mark.parametrize("crf", [CRF, EXACT], ids=["lattice", "exact"])


def scene(size, classes=4, seed=0):
    """Image (3, H, W), probabilities (K, H, W) of a coarse network, mask (H, W)."""
    rng = np.random.default_rng(seed)
    picture, mask = generate(rng, size, classes)
    probabilities = torch.from_numpy(blurred(rng, mask, classes))
    return torch.from_numpy(picture).permute(2, 0, 1), probabilities, torch.from_numpy(mask)


def direct(crf, image, probabilities):
    """Algorithm 1 of the paper in float64, pixel by pixel."""
    colours, (classes, height, width) = image.numpy().astype(float), probabilities.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    kernels = np.zeros((2, len(pixels), len(pixels)))
    for i, (y, x) in enumerate(pixels):
        for j, (v, u) in enumerate(pixels):
            place = (y - v) ** 2 + (x - u) ** 2
            colour = ((colours[:, y, x] - colours[:, v, u]) ** 2).sum()
            kernels[0, i, j] = np.exp(-place / (2 * crf.position_sigma**2))
            kernels[1, i, j] = np.exp(
                -place / (2 * crf.bilateral_sigma**2) - colour / (2 * crf.colour_sigma**2)
            )
    sums = kernels.sum(2)
    kernels /= np.sqrt(sums[:, :, None] * sums[:, None, :])
    weights = (crf.position_weight, crf.bilateral_weight)
    unary = -np.log(probabilities.numpy().astype(float).reshape(classes, -1))
    marginals = np.exp(-unary) / np.exp(-unary).sum(0)
    for _ in range(crf.iterations):
        energy = unary.copy()
        for label in range(classes):
            for other in set(range(classes)) - {label}:
                for weight, kernel in zip(weights, kernels, strict=True):
                    energy[label] += weight * kernel @ marginals[other]
        marginals = np.exp(-energy + energy.min(0))
        marginals /= marginals.sum(0)
    return torch.from_numpy(marginals.reshape(classes, height, width)).float()


def test_exact_mode_is_the_papers_algorithm():
    """The energy there counts what other labels have, ours what the label has itself: since
    marginals sum to 1, the two differ by the same for all labels of a pixel."""
    image, probabilities, _ = scene((9, 11))
    expected = direct(EXACT, image, probabilities)
    torch.testing.assert_close(EXACT(image, probabilities), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("settings", [(30, 10), (67, 3), (80, 13)])
@pytest.mark.parametrize("seed", [0, 1])
def test_lattice_is_close_to_exact(settings, seed):
    """Equal labels of 97.5 % of the pixels, and 0.02 of the probability, at 48x64."""
    image, probabilities, _ = scene((48, 64), seed=seed)
    crf = replace(CRF, bilateral_sigma=settings[0], colour_sigma=settings[1])
    found, expected = crf(image, probabilities), replace(crf, mode="exact")(image, probabilities)
    assert (found.argmax(0) == expected.argmax(0)).float().mean() > 0.975
    assert (found - expected).abs().sum(0).mean() / 2 < 0.02


@MODES
def test_labels_get_better(crf):
    image, probabilities, mask = scene((60, 80))
    before = (probabilities.argmax(0) == mask).float().mean()
    after = (crf(image, probabilities).argmax(0) == mask).float().mean()
    assert after > before + 0.05


@MODES
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (6, 8)])
@pytest.mark.parametrize("classes", [1, 3])
def test_any_size_and_class_count(crf, size, classes):
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    marginals = crf(image, torch.rand(classes, *size).softmax(0))
    assert marginals.shape == (classes, *size)
    assert marginals.dtype == torch.float32
    torch.testing.assert_close(marginals.sum(0), torch.ones(size))


@MODES
def test_constant_image(crf):
    _, probabilities, _ = scene((20, 30))
    marginals = crf(torch.full((3, 20, 30), 128, dtype=torch.uint8), probabilities)
    assert marginals.isfinite().all()
    torch.testing.assert_close(marginals.sum(0), torch.ones(20, 30))


@MODES
def test_impossible_classes_stay_impossible(crf):
    image, probabilities, _ = scene((20, 30), classes=3)
    probabilities = torch.cat([probabilities, torch.zeros(2, 20, 30)])
    probabilities[:3, :5] = torch.tensor([1.0, 0, 0]).view(3, 1, 1)
    marginals = crf(image, probabilities)
    assert marginals.isfinite().all()
    assert marginals[3:].max() < 1e-20
    assert (marginals[0, :5] > 0.99).all()


@MODES
def test_no_iterations_give_the_probabilities_back(crf):
    image, probabilities, _ = scene((8, 9))
    torch.testing.assert_close(replace(crf, iterations=0)(image, probabilities), probabilities)


def test_memory_layout_and_threads_do_not_change_the_result():
    image, probabilities, _ = scene((40, 50))
    assert not image.is_contiguous()
    expected, before = CRF(image, probabilities), torch.get_num_threads()
    assert torch.equal(CRF(image.contiguous(), probabilities), expected)
    turned = probabilities.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert torch.equal(CRF(image, turned), expected)
    assert torch.equal(CRF(image, probabilities.double()), expected)
    try:
        torch.set_num_threads(3)
        assert torch.equal(CRF(image, probabilities), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("settings", [(50, 5), (67, 3), (80, 13)])
def test_agrees_with_pydensecrf(settings):
    pytest.importorskip("pydensecrf")
    image, probabilities, _ = scene((120, 160), classes=6)
    crf = replace(CRF, bilateral_sigma=settings[0], colour_sigma=settings[1])
    peer = torch.from_numpy(run_pydensecrf(crf, image.permute(1, 2, 0).numpy(),
                                           probabilities.numpy()))  # fmt: skip
    found = crf(image, probabilities)
    assert (found.argmax(0) == peer.argmax(0)).float().mean() > 0.999
    assert (found - peer).abs().mean() < 1e-4


def test_large_images_are_refused_in_exact_mode():
    image = torch.zeros(3, 100, 100, dtype=torch.uint8)
    with pytest.raises(UserError, match="takes at most 8192 pixels, the image has 10000"):
        EXACT(image, torch.ones(1, 100, 100))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "fast"}, "mode=fast; expected one of lattice, exact"),
        ({"colour_sigma": 0}, "must be above 0"),
        ({"iterations": -1}, "expected 0 or more"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(CRF, **change)


@pytest.mark.parametrize(("name", "sigma"), [("deeplabv2", 67), ("deconvnet", 20)])
def test_published_settings_build(name, sigma):
    crf = make(yaml.safe_load((conf_dir() / f"inference/crf/{name}.yaml").read_text()))
    assert (crf.iterations, crf.position_sigma, crf.bilateral_sigma) == (10, 3, sigma)


class Correct:
    """Part of the pixels that are not void whose label is right."""

    def __init__(self):
        self.right = self.all = 0

    def update(self, prediction, mask):
        self.right += ((prediction == mask) & (mask != 255)).sum().item()
        self.all += (mask != 255).sum().item()

    def value(self):
        return self.right / self.all


def test_search_goes_from_coarse_to_fine():
    samples = [scene((24, 32), seed=seed) for seed in range(2)]
    samples[0][2][:5] = 255
    crf = replace(CRF, iterations=2)
    found = search_crf(crf, samples, Correct, Grid((20, 40), (5,), (2, 6)), refinements=2)
    assert list(found.trials)[:4] == [(20, 5, 2), (20, 5, 6), (40, 5, 2), (40, 5, 6)]
    assert 4 < len(found.trials) <= 4 + 8 + 8
    assert {setting.colour_sigma for setting in found.trials} == {5}
    best = Setting(found.best.bilateral_sigma, 5, found.best.bilateral_weight)
    assert found.trials[best] == max(found.trials.values())
    assert replace(found.best, **Setting(30, 10, 4)._asdict()) == crf
    score = Correct()
    for image, probabilities, mask in samples:
        score.update(found.best(image, probabilities).argmax(0), mask)
    assert score.value() == found.trials[best]


def test_search_needs_samples_in_every_round():
    samples = iter([scene((8, 9))])
    with pytest.raises(ValueError, match="must last for every round"):
        search_crf(CRF, samples, Correct, Grid((20,), (5, 6), (4,)))
