import pytest
import torch
import torch.nn.functional as F

from segtrain.inference.permutohedral import Lattice


def filtered(lattice, values):
    return lattice.read(lattice.spread(values), slice(None))


def exact(features, values, normalised=False):
    """Sums over all pairs, in float64."""
    features = features.double()
    kernel = (torch.cdist(features, features).square() / -2).exp()
    if normalised:
        scale = kernel.sum(1).rsqrt()
        kernel = scale[:, None] * kernel * scale
    return (kernel @ values.double()).float()


def grid(height, width):
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2).float()


def image_features(sigma, colour_sigma):
    """Position and colour of a smooth 48x64 picture under noise."""
    torch.manual_seed(0)
    picture = F.interpolate(255 * torch.rand(1, 3, 5, 6), (48, 64), mode="bicubic")[0]
    colours = (picture + 3 * torch.randn_like(picture)).flatten(1).T
    return torch.cat([grid(48, 64) / sigma, colours / colour_sigma], 1)


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("sigma", [1, 3, 10])
def test_sums_on_a_grid(sigma):
    features, values = grid(48, 64) / sigma, torch.rand(48 * 64, 3)
    assert error(filtered(Lattice(features), values), exact(features, values)) < 0.035


@pytest.mark.parametrize(("dims", "bound"), [(1, 0.03), (2, 0.04), (3, 0.06), (5, 0.1)])
def test_sums_where_points_fill_the_space(dims, bound):
    torch.manual_seed(0)
    features, values = torch.randn(4096, dims), torch.rand(4096, 3)
    assert error(filtered(Lattice(features), values), exact(features, values)) < bound


@pytest.mark.parametrize(
    ("features", "bound"),
    [
        (grid(48, 64) / 3, 0.02),
        (grid(48, 64) / 60, 0.03),
        (image_features(80, 13), 0.05),
        (image_features(67, 3), 0.1),
        (image_features(20, 20), 0.05),
    ],
)
def test_normalised_sums(features, bound):
    torch.manual_seed(0)
    values = torch.rand(len(features), 3)
    lattice = Lattice(features)
    lattice.normalise()
    assert error(filtered(lattice, values), exact(features, values, normalised=True)) < bound


def test_normalised_sums_keep_the_root_of_the_row_sums():
    lattice = Lattice(image_features(20, 10))
    sums = filtered(lattice, torch.ones(48 * 64, 1))
    lattice.normalise()
    torch.testing.assert_close(filtered(lattice, sums.sqrt()), sums.sqrt(), rtol=1e-4, atol=0)


def test_points_that_coincide_share_their_mean():
    values = torch.rand(50, 4)
    lattice = Lattice(torch.tensor([[1.3, -2.2, 0.4]]).expand(50, 3))
    assert lattice.num_vertices == 4
    lattice.normalise()
    torch.testing.assert_close(filtered(lattice, values), values.mean(0).expand(50, 4))


def test_one_point_keeps_its_value():
    lattice = Lattice(torch.tensor([[0.0, 7.1]]))
    lattice.normalise()
    torch.testing.assert_close(filtered(lattice, torch.tensor([[0.25]])), torch.tensor([[0.25]]))


def test_parts_of_the_points_and_of_the_values_are_the_same_as_all():
    lattice, values = Lattice(image_features(20, 10)), torch.rand(48 * 64, 5)
    table = lattice.spread(values)
    whole = lattice.read(table, slice(None))
    assert table.shape == (lattice.num_vertices + 1, 5)
    assert torch.equal(lattice.read(table, slice(100, 300)), whole[100:300])
    torch.testing.assert_close(filtered(lattice, values[:, 2:3].clone()), whole[:, 2:3])


def test_the_order_of_the_points_does_not_matter():
    features, values = image_features(20, 10), torch.rand(48 * 64, 2)
    order = torch.randperm(len(features))
    shuffled = filtered(Lattice(features[order]), values[order])
    torch.testing.assert_close(shuffled, filtered(Lattice(features), values)[order])


def test_distant_points_have_nothing_to_do_with_one_another():
    """Their keys need 64 bits, those of each half alone do not."""
    near, values = torch.rand(200, 5), torch.rand(400, 3)
    far = near + torch.tensor([300.0, -200, 100, 400, 250])
    together = filtered(Lattice(torch.cat([near, far])), values)
    torch.testing.assert_close(together[:200], filtered(Lattice(near), values[:200]))
    # Float32 leaves fewer digits for the places of distant points.
    torch.testing.assert_close(together[200:], filtered(Lattice(far), values[200:]), rtol=1e-3,
                               atol=0)  # fmt: skip


def test_features_beyond_numbering_are_refused():
    with pytest.raises(ValueError, match="too many to be numbered"):
        Lattice(torch.tensor([[0.0] * 5, [1e6] * 5]))


def test_threads_do_not_change_the_result():
    features, values = image_features(30, 5), torch.rand(48 * 64, 7)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(filtered(Lattice(features), values))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)
