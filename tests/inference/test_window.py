"""Where windows lie, what they are padded with and what is mirrored; the rest: test_protocols."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import composed
from PIL import Image
from torch import nn

from segtrain.architecture.blocks import Normalize
from segtrain.configuration.schema import checked
from segtrain.errors import UserError
from segtrain.inference import strips
from segtrain.inference.semantic import SemanticInference
from segtrain.inference.window import SlidingWindow, window_starts

MEAN = (0.4, 0.5, 0.6)  # 102, 127.5 and 153


class Net(nn.Module):
    """A convolution of stride 4 that keeps what it sees; pictures lie in one of its classes."""

    align_corners = False

    def __init__(self):
        super().__init__()
        self.weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0)) / 200
        self.backbone = nn.Module()
        self.backbone.normalize = Normalize(MEAN, (1.0,) * 3)
        self.seen = []

    def forward(self, image):
        self.seen.extend(image)
        return {"logits": F.conv2d(image.float(), self.weight, stride=4, padding=1)}


def image(height, width):
    coarse = torch.randint(1, 255, (1, 3, 5, 7)).float()
    return F.interpolate(coarse, (height, width), mode="bilinear")[0].to(torch.uint8)


def window(average="logits", crop=(16, 16), stride=(8, 8), **more):
    return SlidingWindow(crop, stride, average, 3, "device", **more)


def look(net, crop):
    return F.interpolate(net(crop[None])["logits"], tuple(crop.shape[1:]), mode="bilinear")[0]


def test_windows_are_cut_to_small_pictures_that_are_not_padded():
    net, one = Net(), image(9, 30)
    result = window(padding="none")(net, one[None], None)
    assert {tuple(crop.shape[1:]) for crop in net.seen} == {(9, 16)}
    total, counts = torch.zeros(5, 9, 30), torch.zeros(30)
    for start in (0, 8, 14):
        total[:, :, start : start + 16] += look(net, one[:, :, start : start + 16])
        counts[start : start + 16] += 1
    torch.testing.assert_close(result[0], total / counts)


@pytest.mark.parametrize(("fill", "colour"), [("mean", [102, 128, 153]), ("black", [0, 0, 0]),
                                              ("exact_mean", [102, 127.5, 153])])  # fmt: skip
@pytest.mark.parametrize(("padding", "place"), [("end", (0, 0)), ("centre", (3, 2))])
def test_small_pictures_are_padded(fill, colour, padding, place):
    net, one = Net(), image(9, 11)
    result = window(padding=padding, fill=fill)(net, one[None], None)
    (seen,) = net.seen
    inside = (slice(place[0], place[0] + 9), slice(place[1], place[1] + 11))
    expected = torch.tensor(colour)[:, None, None].float().repeat(1, 16, 16)
    expected[:, *inside] = one.float()
    torch.testing.assert_close(seen.float(), expected)
    torch.testing.assert_close(result[0], look(net, seen)[:, *inside])


def test_the_last_window_may_go_on_beyond_the_picture():
    net, one = Net(), image(21, 30)
    result = window(last="padded", fill="black")(net, one[None], None)
    padded = F.pad(one, (0, 2, 0, 3))  # to 24 x 32
    expected = window()(net, padded[None], None)
    torch.testing.assert_close(result, expected[:, :, :21, :30])
    assert window_starts(30, 16, 8, last="padded") == [0, 8, 16]


def test_windows_are_spread_evenly():
    assert window_starts(40, 16, 16, "spread") == [0, 12, 24]
    assert window_starts(49, 16, 16, "spread") == [0, 11, 22, 33]
    assert window_starts(32, 16, 16, "spread") == [0, 16]
    assert window_starts(16, 16, 16, "spread") == window_starts(9, 16, 16, "spread") == [0]


def eomt(net, one, crop):
    """Scores as EoMT's semantic test has them: windows along the longer side, averaged, resized."""
    size = one.shape[1:]
    factor = max(crop / side for side in size)
    seen = tuple(round(side * factor) for side in size)
    picture = Image.fromarray(one.permute(1, 2, 0).numpy()).resize(seen[::-1], Image.BILINEAR)
    picture = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    count = math.ceil(max(seen) / crop)
    overlap = (count * crop - max(seen)) / (count - 1) if count > 1 else 0
    total, counts = torch.zeros(5, *seen), torch.zeros(seen)
    for number in range(count):
        start = int(number * (crop - overlap) + 1e-9)
        part = slice(start, start + crop)
        place = (part, slice(None)) if seen[0] > seen[1] else (slice(None), part)
        total[:, *place] += look(net, picture[:, *place])
        counts[place] += 1
    return F.interpolate((total / counts)[None], tuple(size), mode="bilinear")[0]


@pytest.mark.parametrize("size", [(24, 62), (61, 20), (30, 30), (12, 25), (33, 40)])
def test_the_semantic_test_of_eomt(size):
    one = image(*size)
    slid = window(crop=(16, 16), stride=(16, 16), last="spread")
    own = SemanticInference(slid, False, [1.0], False, None, None, size={"short": 16},
                            resampling="pillow")  # fmt: skip
    (found,) = own(Net(), [one])
    torch.testing.assert_close(found, eomt(Net(), one, 16), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("average", ["logits", "probabilities", "exponentials"])
def test_each_crop_is_mirrored(average):
    """One window, whose crop is the picture: mirroring it is mirroring the picture."""
    net, one = Net(), image(16, 16)
    (result,) = window(average)(net, one[None], None, mirrored=True)
    plain, mirrored = look(net, one), look(net, one.flip(2)).flip(2)
    if average == "exponentials":
        expected = plain + mirrored
    elif average == "logits":
        expected = (plain + mirrored) / 2
    else:
        expected = ((plain.softmax(0) + mirrored.softmax(0)) / 2).log()
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("flip", [False, True])
def test_windows_of_mirrored_crops_stay_where_they_are(flip):
    one = image(16, 29)
    seen = {}
    for mirror in ("picture", "crop"):
        net = Net()
        own = SemanticInference(window(mirror=mirror), False, [1.0], flip, None, None)
        own(net, [one])
        seen[mirror] = {tuple(crop[0, 0].tolist()) for crop in net.seen}
    starts = {tuple(one[0, 0, start : start + 16].tolist()) for start in (0, 8, 13)}
    both = starts | {row[::-1] for row in starts}
    assert seen["crop"] == (both if flip else starts)
    assert (seen["picture"] == seen["crop"]) is not flip


@pytest.mark.parametrize(
    "more",
    [{"padding": "none"}, {"padding": "centre"}, {"last": "padded", "fill": "black"},
     {"last": "spread"},
     {"mirror": "crop"}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("size", [(9, 50), (33, 61), (40, 7)])
def test_strips_of_large_pictures_have_the_same_labels(monkeypatch, more, size):
    monkeypatch.setattr(strips, "SCORES", 5 * 16 * 20)
    net, one, own = Net(), image(*size), window("probabilities", **more)
    expected = own(net, one[None], None)[0].argmax(0).numpy()
    assert (strips.label_map(own, net, one, None, 5) == expected).all()


def test_what_is_not_the_default_is_named():
    assert window().protocol == {"crop_size": [16, 16], "stride": [8, 8], "average": "logits"}
    more = {"padding": "centre", "fill": "black", "last": "padded", "mirror": "crop"}
    assert window(**more).protocol == window().protocol | more


@pytest.mark.parametrize(("average", "scores"), [("logits", "exp_sum"), ("exponentials", None)])
def test_exponentials_go_with_their_sum(average, scores):
    with pytest.raises(UserError, match="go together"):
        SemanticInference(window(average), True, [1.0], True, None, None, scores=scores)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("padding=left", "one of end, centre, none"),
        ("fill=white", "one of mean, exact_mean, black"),
        ("last=outwards", "one of inwards, padded"),
        ("mirror=true", "one of picture, crop"),
        ("average=exp", "one of logits, probabilities, exponentials"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, expected):
    config = composed("inference=sliding", f"inference.window.{change}")
    with pytest.raises(UserError, match=f"inference.window.{change}: expected {expected}"):
        checked("train", config)
