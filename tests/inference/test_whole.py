import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segtrain.architecture.blocks import Normalize
from segtrain.inference.whole import WholeImage


class Net(nn.Module):
    """A stride-4 network without global context."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 4, stride=4)
        self.align_corners = False

    def forward(self, image):
        height, width = image.shape[-2:]
        padded = F.pad(image.float(), (0, -width % 4, 0, -height % 4))
        return {"logits": self.conv(padded), "align_corners": self.align_corners}


def image(height, width):
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (33, 47)])
def test_scores_have_the_images_size(size):
    (result,) = WholeImage(scale=1.0, flip=False, pad=True, logit_adjustment=None)(
        Net(), [image(*size)]
    )
    assert result.shape == (5, *size)
    assert result.dtype == torch.float32


def test_batching_images_of_mixed_sizes_changes_nothing():
    images = [image(20, 32), image(17, 32), image(20, 32), image(9, 9)]
    inference, net = WholeImage(scale=1.0, flip=False, pad=True, logit_adjustment=None), Net()
    together = inference(net, images)
    for one, result in zip(images, together, strict=True):
        torch.testing.assert_close(inference(net, [one])[0], result)


def test_scale_resizes_the_input_and_the_scores_back():
    one, net = image(32, 48), Net()
    (result,) = WholeImage(scale=0.5, flip=False, pad=True, logit_adjustment=None)(net, [one])
    half = F.interpolate(one[None].float(), (16, 24), mode="bilinear", antialias=True)
    expected = F.interpolate(net(half)["logits"], (32, 48), mode="bilinear")[0]
    torch.testing.assert_close(result, expected)
    assert WholeImage(scale=0.5, flip=False, pad=True, logit_adjustment=None).protocol[
        "scales"
    ] == [0.5]


def test_flip_averages_probabilities_with_the_mirrored_image():
    one, net = image(32, 48), Net()
    (result,) = WholeImage(scale=1.0, flip=True, pad=True, logit_adjustment=None)(net, [one])
    plain = net(one[None])["logits"].softmax(1)
    mirrored = net(one[None].flip(3))["logits"].softmax(1).flip(3)
    expected = F.interpolate((plain + mirrored) / 2, (32, 48), mode="bilinear")[0]
    torch.testing.assert_close(result, expected)
    (again,) = WholeImage(scale=1.0, flip=True, pad=True, logit_adjustment=None)(net, [one.flip(2)])
    torch.testing.assert_close(again.flip(2), result)
    assert (
        WholeImage(scale=1.0, flip=True, pad=True, logit_adjustment=None).protocol["flip"] is True
    )


def test_logit_adjustment_is_added_per_class():
    one, net = image(32, 48), Net()
    (plain,) = WholeImage(scale=1.0, flip=False, pad=True, logit_adjustment=None)(net, [one])
    terms = [1.0, -2.0, 0.0, 0.5, 3.0]
    (adjusted,) = WholeImage(scale=1.0, flip=False, pad=True, logit_adjustment=terms)(net, [one])
    torch.testing.assert_close(adjusted, plain + torch.tensor(terms).view(-1, 1, 1))


class Cells(nn.Module):
    """Puts out its input at every eighth pixel, as a padded convolution of stride 8 sees it."""

    def __init__(self):
        super().__init__()
        self.align_corners = True
        self.backbone = nn.Module()
        self.backbone.output_stride = 8
        self.backbone.normalize = Normalize((0.0,) * 3, (1.0,) * 3)

    def forward(self, image):
        return {"logits": image[:, :, ::8, ::8].float(), "align_corners": True}


@pytest.mark.parametrize("size", [(17, 33), (16, 31), (20, 40), (24, 25)])
@pytest.mark.parametrize("flip", [False, True])
def test_padding_puts_aligned_cells_where_they_are(size, flip):
    """A ramp comes back as itself at any size, away from the border that touches the padding."""
    ramp = torch.arange(size[1]).expand(3, *size).to(torch.uint8)
    inference = WholeImage(scale=1.0, flip=False, pad=True, logit_adjustment=None)
    (result,) = inference(Cells(), [ramp])
    assert result.shape == (3, *size)
    inside = (size[1] - 1) // 8 * 8 + 1
    rows = (size[0] - 1) // 8 * 8 + 1
    torch.testing.assert_close(result[:, :rows, :inside], ramp[:, :rows, :inside].float())
    if flip:
        (both,) = WholeImage(scale=1.0, flip=True, pad=True, logit_adjustment=None)(Cells(), [ramp])
        assert both.shape == (3, *size)


def test_without_padding_the_corners_of_the_image_are_aligned():
    ramp = torch.arange(24).expand(3, 16, 24).to(torch.uint8)
    inference = WholeImage(scale=1.0, flip=False, pad=False, logit_adjustment=None)
    (result,) = inference(Cells(), [ramp])
    expected = F.interpolate(ramp[None, :, ::8, ::8].float(), (16, 24), mode="bilinear",
                             align_corners=True)[0]  # fmt: skip
    torch.testing.assert_close(result, expected)
