"""Every architecture for instances, on the hardest images; a new one is tested unasked."""

import functools

import numpy as np
import pytest
import torch
from conftest import architectures, composed, small_network
from torch import nn

from segtrain.assembly import build_data, build_task
from segtrain.dataset.instances import target_from_masks, training_objects

RNG = np.random.default_rng(0)
CASES = ["nothing", "many", "pixels", "crowd", "wide", "tall"]


def scene(case: str) -> tuple[torch.Tensor, dict]:
    """Image (3, H, W) and what it shows."""
    height, width = {"wide": (3, 400), "tall": (500, 2)}.get(case, (64, 64))
    count = {"nothing": 0, "many": 300, "pixels": 3}.get(case, 1)
    masks = np.zeros((count, height, width), np.uint8)
    for number, mask in enumerate(masks):
        if case == "many":
            row, column = RNG.integers(0, 60, 2)
            mask[row : row + 4, column : column + 4] = 1
        elif case == "pixels":
            mask[(0, 63, 30)[number], (0, 63, 20)[number]] = 1
        else:
            mask[:] = 1
    labels = [number % 7 for number in range(count)]
    crowd = np.full(count, case == "crowd")
    target = training_objects(
        target_from_masks(masks, labels, crowd, 0), (width, height), flip=False
    )
    return torch.from_numpy(RNG.integers(0, 256, (3, height, width), dtype=np.uint8)), target


@pytest.fixture(scope="module", params=architectures("instance"))
def task(request):
    chosen = f"architecture={request.param}"
    config = composed(chosen, *small_network(chosen), "dataset=shapes_instances")
    torch.manual_seed(0)
    return build_task(config, build_data(config).labels)


@functools.cache
def processor_convolves_narrow_maps() -> bool:
    """Whether PyTorch's own bfloat16 convolution to one column is right.

    On processors with AMX it takes numbers from memory beside a tall map, whatever lies there.
    """
    for channels, height, width in [(16, 250, 2), (64, 125, 1), (192, 32, 2)] * 10:
        convolution = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        image = torch.randn(1, channels, height, width)
        torch.full((2**20,), float("nan"))  # what lies there
        with torch.no_grad():
            exact = convolution(image)
            with torch.autocast("cpu", torch.bfloat16):
                narrow = convolution(image)
        if not torch.allclose(narrow.float(), exact, atol=0.1):
            return False
    return True


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_learns_and_finds_without_nan(task, case, bfloat16):
    if bfloat16 and case == "tall" and not processor_convolves_narrow_maps():
        pytest.skip("PyTorch's bfloat16 convolution of narrow maps is not finite on this processor")
    image, target = scene(case)
    model = task.model
    model.train(), model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        terms = task.evaluation.terms(model, task.loss, {"image": [image], "target": [target]})
    sum(terms.values()).backward()
    assert all(torch.isfinite(term) for term in terms.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        (found,) = task.inference(model, [image])
    values = [value for value in found.values() if isinstance(value, torch.Tensor)]
    assert all(torch.isfinite(value).all() for value in values)
    assert found["masks"].dtype == torch.float32


def test_images_of_different_sizes_train_together(task):
    scenes = [scene("pixels"), scene("wide")]
    batch = {"image": [image for image, _ in scenes], "target": [target for _, target in scenes]}
    terms = task.evaluation.terms(task.model.train(), task.loss, batch)
    assert all(torch.isfinite(term) for term in terms.values())
