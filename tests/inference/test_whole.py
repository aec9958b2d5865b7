import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segtrain.inference.whole import WholeImage


class Net(nn.Module):
    """A stride-4 network without global context."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 4, stride=4)

    def forward(self, image):
        height, width = image.shape[-2:]
        padded = F.pad(image.float(), (0, -width % 4, 0, -height % 4))
        return {"logits": self.conv(padded), "align_corners": False}


def image(height, width):
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (33, 47)])
def test_scores_have_the_images_size(size):
    (result,) = WholeImage(scale=1.0, flip=False, logit_adjustment=None)(Net(), [image(*size)])
    assert result.shape == (5, *size)
    assert result.dtype == torch.float32


def test_batching_images_of_mixed_sizes_changes_nothing():
    images = [image(20, 32), image(17, 32), image(20, 32), image(9, 9)]
    inference, net = WholeImage(scale=1.0, flip=False, logit_adjustment=None), Net()
    together = inference(net, images)
    for one, result in zip(images, together, strict=True):
        torch.testing.assert_close(inference(net, [one])[0], result)


def test_scale_resizes_the_input_and_the_scores_back():
    one, net = image(32, 48), Net()
    (result,) = WholeImage(scale=0.5, flip=False, logit_adjustment=None)(net, [one])
    half = F.interpolate(one[None].float(), (16, 24), mode="bilinear", antialias=True)
    expected = F.interpolate(net(half)["logits"], (32, 48), mode="bilinear")[0]
    torch.testing.assert_close(result, expected)
    assert WholeImage(scale=0.5, flip=False, logit_adjustment=None).protocol["scales"] == [0.5]


def test_flip_averages_probabilities_with_the_mirrored_image():
    one, net = image(32, 48), Net()
    (result,) = WholeImage(scale=1.0, flip=True, logit_adjustment=None)(net, [one])
    plain = net(one[None])["logits"].softmax(1)
    mirrored = net(one[None].flip(3))["logits"].softmax(1).flip(3)
    expected = F.interpolate((plain + mirrored) / 2, (32, 48), mode="bilinear")[0]
    torch.testing.assert_close(result, expected)
    (again,) = WholeImage(scale=1.0, flip=True, logit_adjustment=None)(net, [one.flip(2)])
    torch.testing.assert_close(again.flip(2), result)
    assert WholeImage(scale=1.0, flip=True, logit_adjustment=None).protocol["flip"] is True


def test_logit_adjustment_is_added_per_class():
    one, net = image(32, 48), Net()
    (plain,) = WholeImage(scale=1.0, flip=False, logit_adjustment=None)(net, [one])
    terms = [1.0, -2.0, 0.0, 0.5, 3.0]
    (adjusted,) = WholeImage(scale=1.0, flip=False, logit_adjustment=terms)(net, [one])
    torch.testing.assert_close(adjusted, plain + torch.tensor(terms).view(-1, 1, 1))
