"""Sizes of the test and what is averaged; `test_protocols.py` has windows, scales and padding."""

import pytest
import torch
import torch.nn.functional as F
from conftest import composed
from torch import nn

from segtrain.architecture.blocks import Normalize
from segtrain.assembly import make
from segtrain.configuration.checking import checked
from segtrain.errors import UserError
from segtrain.inference.semantic import SemanticInference
from segtrain.inference.window import SlidingWindow


class Net(nn.Module):
    """A convolution of stride 4 that keeps the sizes that it sees."""

    align_corners = False

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 4, stride=4)
        nn.init.normal_(self.conv.weight, std=0.005)
        self.backbone = nn.Module()
        self.backbone.output_stride = 4
        self.backbone.normalize = Normalize((0.4, 0.5, 0.6), (1.0,) * 3)
        self.seen = []

    @torch.no_grad()
    def forward(self, image):
        self.seen.append(tuple(image.shape[2:]))
        height, width = image.shape[-2:]
        return {"logits": self.conv(F.pad(image.float(), (0, -width % 4, 0, -height % 4)))}


def image(height=30, width=40):
    coarse = torch.randint(0, 256, (1, 3, 5, 7)).float()
    return F.interpolate(coarse, (height, width), mode="bilinear")[0].to(torch.uint8)


def inference_of(scales=(1.0,), flip=False, window=None, crf=None, **more):
    return SemanticInference(window, True, list(scales), flip, None, crf, **more)


def looks(one, size, net):
    """Logits of an image and its mirrored one, resized to what is seen and to the image."""
    found = []
    for mirrored in (False, True):
        seen = F.interpolate(one[None].float(), size, mode="bilinear", antialias=size[0] < 30)
        logits = net(seen.flip(3) if mirrored else seen)["logits"]
        for wanted in (size, tuple(one.shape[1:])):
            logits = F.interpolate(logits, wanted, mode="bilinear")
        found.append(logits.flip(3) if mirrored else logits)
    return found


def test_images_are_resized_and_logits_come_back_by_what_was_seen():
    one, net = image(), Net()
    inference = inference_of(size={"short": 45, "long": 99})
    (result,) = inference(net, [one])
    assert net.seen == [(45, 60)]
    torch.testing.assert_close(result, looks(one, (45, 60), net)[0][0])
    assert inference.protocol["size"] == {"short": 45, "long": 99}


def test_scales_are_relative_to_the_size():
    one, net = image(), Net()
    inference_of(scales=[0.5, 2.0], size={"long": 60})(net, [one])
    assert net.seen == [(23, 30), (90, 120)]


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_windows_slide_over_the_resized_image(average):
    one, net = image(), Net()
    window = SlidingWindow((24, 24), (16, 16), average, 8, "device")
    (result,) = inference_of(size={"height": 40, "width": 56}, window=window)(net, [one])
    seen = F.interpolate(one[None].float(), (40, 56), mode="bilinear")
    scores = window(net, seen, None)
    if average == "logits":
        expected = F.interpolate(scores, (30, 40), mode="bilinear")
    else:
        expected = F.interpolate(scores.exp(), (30, 40), mode="bilinear").log()
    torch.testing.assert_close(result, expected[0])


@pytest.mark.parametrize("scores", ["softmax", "logits", "exp_sum"])
@pytest.mark.parametrize("flip", [False, True])
def test_what_is_averaged(scores, flip):
    one, net = image(), Net()
    inference = inference_of(scales=[0.5, 1.0], flip=flip, scores=scores, size={"short": 30})
    (result,) = inference(net, [one])
    first, second = (looks(one, size, net)[: 1 + flip] for size in ((15, 20), (30, 40)))
    if scores == "exp_sum":
        expected = sum(first).exp() + sum(second).exp()
        expected = expected / expected.sum(1, keepdim=True)
    else:
        found = [*first, *second]
        found = [look.softmax(1) for look in found] if scores == "softmax" else found
        expected = sum(found) / len(found)
    torch.testing.assert_close(result, expected[0], atol=1e-5, rtol=1e-5)
    assert inference.gives_probabilities is (scores != "logits")
    assert inference.protocol["scores"] == scores


def test_exponentials_of_large_logits_stay_finite():
    one, net = image(), Net()
    net.conv.weight.data *= 1e4
    (result,) = inference_of(scales=[0.5, 1.0], flip=True, scores="exp_sum")(net, [one])
    assert torch.isfinite(result).all()


def test_a_crf_gets_probabilities_of_averaged_logits():
    class Keep:
        protocol = {}

        def __call__(self, own, probabilities):
            return probabilities

    inference = inference_of(flip=True, scores="logits", crf=Keep())
    (result,) = inference(Net(), [image()])
    assert inference.gives_probabilities
    torch.testing.assert_close(result.sum(0), torch.ones(30, 40))


PROTOCOLS = ["whole", "sliding", "multiscale"]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_takes_a_size_on_the_command_line(name):
    config = checked("train", composed(
        f"inference={name}", "inference.size={short:45,long:99}", "inference.scores=logits",
        "inference.scales=[1.0]"))  # fmt: skip
    node = config["inference"]
    if node["window"] is not None:
        node["window"] |= {"crop_size": [33, 33], "stride": [22, 22]}
    net = Net()
    (result,) = make(node)(net, [image()])
    assert result.shape == (5, 30, 40)
    assert make(node).protocol["size"] == {"short": 45, "long": 99}
    assert net.seen[0] == ((33, 33) if name == "sliding" else (45, 60))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("size=512", "inference.size=512: expected a mapping of short, long, height, width"),
        ("size={short:0}", "inference.size.short=0: expected a whole number of at least 1"),
        ("size={shorter:9}", "unknown key 'inference.size.shorter'"),
        ("scores=votes", "inference.scores=votes: expected one of softmax, logits, exp_sum"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        checked("train", composed("inference=whole", f"inference.{change}"))


def test_bounds_and_exact_sizes_exclude_each_other():
    with pytest.raises(UserError, match="inference.size="):
        inference_of(size={"short": 9, "height": 9})
