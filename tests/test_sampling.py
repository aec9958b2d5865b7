"""Values between cells, whether gradients have to repeat or not."""

import pytest
import torch

from segtrain.sampling import bilinear


@pytest.fixture
def repeats():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def values_and_gradients() -> list[torch.Tensor]:
    torch.manual_seed(0)
    maps = torch.randn(3, 2, 4, 5, requires_grad=True)
    points = (torch.rand(3, 50, 2) * 1.6 - 0.3).requires_grad_()  # outside too
    values = bilinear(maps, points)
    values.square().sum().backward()
    return [values, maps.grad, points.grad]


def test_what_repeats_is_the_same(request):
    expected = values_and_gradients()
    request.getfixturevalue("repeats")
    for got, wanted in zip(values_and_gradients(), expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_halfway_between_cells_and_outside():
    maps = torch.tensor([[[[1.0, 3], [5, 7]]]])
    points = torch.tensor([[[0.25, 0.25], [0.5, 0.25], [0.5, 0.5], [0.0, 0.25], [1.4, 0.5]]])
    assert bilinear(maps, points)[0, 0].tolist() == [1, 2, 4, 0.5, 0]
