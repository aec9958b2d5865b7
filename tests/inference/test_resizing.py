import pytest

from segtrain.errors import UserError
from segtrain.inference.resizing import fitted, require_size


@pytest.mark.parametrize(
    ("size", "wanted", "scale", "expected"),
    [
        ((375, 500), {"short": 512, "long": 2048}, 1.0, (512, 683)),
        ((500, 375), {"short": 512, "long": 2048}, 1.0, (683, 512)),
        ((100, 500), {"short": 512, "long": 2048}, 1.0, (410, 2048)),
        ((375, 500), {"short": 512, "long": 2048}, 1.75, (896, 1195)),
        ((333, 500), {"long": 520}, 1.0, (346, 520)),
        ((333, 500), {"long": 520}, 0.5, (173, 260)),
        ((333, 500), {"short": 520}, 1.0, (520, 781)),
        ((333, 500), {"height": 30, "width": 20}, 1.0, (30, 20)),
        ((333, 500), {"height": 30, "width": 21}, 0.5, (15, 11)),
        ((1000, 3), {"long": 10}, 1.0, (10, 1)),
    ],
)
def test_images_are_fitted_into_the_bounds(size, wanted, scale, expected):
    assert fitted(size, wanted, scale) == expected


@pytest.mark.parametrize("size", [(375, 500), (500, 333), (71, 1500), (999, 1000)])
@pytest.mark.parametrize("wanted", [{"short": 52, "long": 205}, {"long": 52}, {"short": 99}])
def test_a_fitted_image_fits(size, wanted):
    seen = fitted(size, wanted, 1.0)
    assert fitted(seen, wanted, 1.0) == seen


@pytest.mark.parametrize(
    "size", [{}, {"height": 9}, {"width": 9}, {"height": 9, "width": 9, "long": 9}]
)
def test_what_is_no_size_is_refused(size):
    with pytest.raises(UserError, match="inference.size=.*short, long or both"):
        require_size(size, "inference.size")
