import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from segtrain.errors import UserError
from segtrain.inference.resizing import fitted, require_size, resized


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


def test_sides_may_be_rounded_down():
    assert fitted((333, 500), {"short": 520}, rounding="down") == (520, 780)


def image(height=61, width=80):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, height, width), np.uint8))


@pytest.mark.parametrize("size", [(30, 41), (99, 120), (30, 120), (61, 80)])
def test_images_are_resized_as_libraries_do(size):
    one = image()
    pixels = one.permute(1, 2, 0).numpy()
    expected = {
        "opencv": cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR),
        "pillow": np.array(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR)),
    }
    for library, image_there in expected.items():
        seen, scale = resized([one, one], size, library)
        assert seen.dtype == torch.uint8
        assert np.array_equal(seen[1].permute(1, 2, 0).numpy(), image_there)
        assert scale == (size[1] / 80, size[0] / 61)


@pytest.mark.parametrize("size", [(30, 41), (99, 120), (61, 80)])
@pytest.mark.parametrize("align_corners", [False, True])
def test_images_are_resized_without_antialiasing(size, align_corners):
    seen, _ = resized([image()], size, "aligned" if align_corners else "plain")
    whole = image()[None].float()
    expected = F.interpolate(whole, size, mode="bilinear", align_corners=align_corners)
    assert torch.equal(seen.float(), expected)


@pytest.mark.parametrize("size", [(61, 80), (300, 200), (150, 333)])
def test_torchvisions_detectors_see_the_same_image(size):
    one = image(*size)
    transform = GeneralizedRCNNTransform(120, 199, [0.0] * 3, [1.0] * 3)
    batch, _ = transform([one.float()])
    (height, width) = batch.image_sizes[0]
    assert fitted(size, {"short": 120, "long": 199}, rounding="down") == (height, width)
    seen, _ = resized([one], (height, width), "plain")
    torch.testing.assert_close(seen[0], batch.tensors[0, :, :height, :width])
