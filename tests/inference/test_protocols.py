import pytest
import torch
import torch.nn.functional as F
from conftest import composed
from torch import nn

from segtrain.architecture.blocks import Normalize
from segtrain.configuration.checking import checked
from segtrain.dataset.scale_crop import MEAN_RGB
from segtrain.errors import UserError
from segtrain.inference.semantic import SemanticInference
from segtrain.inference.window import SlidingWindow, coverage, look_once, window_starts


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


def whole(scales=(1.0,), flip=False, pad=True, logit_adjustment=None, window=None, crf=None):
    return SemanticInference(window, pad, list(scales), flip, logit_adjustment, crf)


def image(height, width):
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (33, 47)])
def test_scores_have_the_images_size(size):
    (result,) = whole()(Net(), [image(*size)])
    assert result.shape == (5, *size)
    assert result.dtype == torch.float32


def test_batching_images_of_mixed_sizes_changes_nothing():
    images = [image(20, 32), image(17, 32), image(20, 32), image(9, 9)]
    inference, net = whole(), Net()
    together = inference(net, images)
    for one, result in zip(images, together, strict=True):
        torch.testing.assert_close(inference(net, [one])[0], result)


def test_scale_resizes_the_input_and_the_scores_back():
    one, net = image(32, 48), Net()
    (result,) = whole(scales=[0.5])(net, [one])
    half = F.interpolate(one[None].float(), (16, 24), mode="bilinear", antialias=True)
    expected = F.interpolate(net(half)["logits"], (32, 48), mode="bilinear")[0]
    torch.testing.assert_close(result, expected)
    assert whole(scales=[0.5]).protocol["scales"] == [0.5]


def test_flip_averages_probabilities_with_the_mirrored_image():
    one, net = image(32, 48), Net()
    (result,) = whole(flip=True)(net, [one])
    plain, mirrored = (
        F.interpolate(net(x)["logits"], (32, 48), mode="bilinear").softmax(1)
        for x in (one[None], one[None].flip(3))
    )
    torch.testing.assert_close(result, ((plain + mirrored.flip(3)) / 2)[0])
    (again,) = whole(flip=True)(net, [one.flip(2)])
    torch.testing.assert_close(again.flip(2), result)
    assert whole(flip=True).protocol["flip"] is True


def test_several_scales_are_averaged_as_written_by_hand():
    one, net = image(30, 46), Net()
    (result,) = whole(scales=[0.5, 1.0, 1.75], flip=True)(net, [one])
    total = torch.zeros(5, 30, 46)
    for scale in (0.5, 1.0, 1.75):
        size = round(30 * scale), round(46 * scale)
        scaled = F.interpolate(one[None].float(), size, mode="bilinear", antialias=scale < 1)
        for flipped in (False, True):
            logits = net(scaled.flip(3) if flipped else scaled)["logits"]
            scores = F.interpolate(logits, (30, 46), mode="bilinear").softmax(1)[0]
            total += scores.flip(2) if flipped else scores
    torch.testing.assert_close(result, total / 6)
    torch.testing.assert_close(result.sum(0), torch.ones(30, 46))


def test_logit_adjustment_is_added_per_class():
    one, net = image(32, 48), Net()
    (plain,) = whole()(net, [one])
    terms = [1.0, -2.0, 0.0, 0.5, 3.0]
    (adjusted,) = whole(logit_adjustment=terms)(net, [one])
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
    inference = whole()
    (result,) = inference(Cells(), [ramp])
    assert result.shape == (3, *size)
    inside = (size[1] - 1) // 8 * 8 + 1
    rows = (size[0] - 1) // 8 * 8 + 1
    torch.testing.assert_close(result[:, :rows, :inside], ramp[:, :rows, :inside].float())
    if flip:
        (both,) = whole(flip=True)(Cells(), [ramp])
        assert both.shape == (3, *size)


def test_without_padding_the_corners_of_the_image_are_aligned():
    ramp = torch.arange(24).expand(3, 16, 24).to(torch.uint8)
    inference = whole(pad=False)
    (result,) = inference(Cells(), [ramp])
    expected = F.interpolate(ramp[None, :, ::8, ::8].float(), (16, 24), mode="bilinear",
                             align_corners=True)[0]  # fmt: skip
    torch.testing.assert_close(result, expected)


class Aligned(Net):
    """With what a window needs to know of a network."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.output_stride = 4
        self.backbone.normalize = Normalize((0.4, 0.5, 0.6), (1.0,) * 3)


def slow_sliding(net, one, crop_size, stride, average):
    """One crop after another into full-size sums, each pixel counted."""
    height, width = one.shape[1:]
    mean = net.backbone.normalize.mean[0].round().to(torch.uint8)
    large = [max(side, crop) for side, crop in zip((height, width), crop_size, strict=True)]
    padded = mean.expand(3, *large).clone()
    padded[:, :height, :width] = one
    total, counts = torch.zeros(5, *large), torch.zeros(*large)
    top = 0
    while True:
        row = min(top, large[0] - crop_size[0])
        left = 0
        while True:
            column = min(left, large[1] - crop_size[1])
            place = (slice(row, row + crop_size[0]), slice(column, column + crop_size[1]))
            logits = net(padded[(slice(None), *place)][None])["logits"]
            scores = F.interpolate(logits, crop_size, mode="bilinear",
                                   align_corners=net.align_corners)[0]  # fmt: skip
            total[(slice(None), *place)] += scores.softmax(0) if average else scores
            counts[place] += 1
            if left + crop_size[1] >= large[1]:
                break
            left += stride[1]
        if top + crop_size[0] >= large[0]:
            break
        top += stride[0]
    mean_scores = (total / counts)[:, :height, :width]
    return mean_scores.clamp(min=torch.finfo(torch.float32).tiny).log() if average else mean_scores


RNG = torch.Generator().manual_seed(0)
CASES = [
    ((h, w), (ch, cw), (min(sh, ch), min(sw, cw)), many, average, aligned)
    for h, w, ch, cw, sh, sw, many, average, aligned in zip(
        *(torch.randint(low, high, (24,), generator=RNG).tolist()
          for low, high in ((1, 60), (1, 60), (4, 33), (4, 33), (1, 33), (1, 33), (1, 9), (0, 2),
                            (0, 2))),
        strict=True,
    )
]  # fmt: skip


@pytest.mark.parametrize(("size", "crop", "stride", "many", "average", "aligned"), CASES)
def test_sliding_is_the_slow_loop(size, crop, stride, many, average, aligned):
    one, net = image(*size), Aligned()
    net.align_corners = bool(aligned)
    window = SlidingWindow(crop, stride, "probabilities" if average else "logits", many, "device")
    with torch.no_grad():
        (result,) = whole(window=window)(net, [one])
        expected = slow_sliding(net, one, crop, stride, average)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)


def test_bands_are_finished_rows_from_the_top():
    one, net = image(50, 20), Aligned()
    window = SlidingWindow((16, 16), (8, 8), "probabilities", 4, "cpu")
    with torch.no_grad():
        bands = list(window.bands(net, one, None))
        whole_picture = window(net, one[None], None)[0]
    assert [top for top, _ in bands] == [0, 16, 32]
    torch.testing.assert_close(torch.cat([band for _, band in bands], 1), whole_picture)


def test_windows_cover_every_pixel():
    assert window_starts(100, 40, 30) == [0, 30, 60]
    assert window_starts(101, 40, 30) == [0, 30, 60, 61]
    assert window_starts(30, 40, 30) == [0]
    assert coverage([0, 30, 60, 61], 40, 101).min() == 1


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"stride": (20, 8)}, "gaps"),
        ({"stride": (8, 20)}, "gaps"),
    ],
)
def test_windows_that_make_no_sense_are_refused(changes, word):
    settings = {"crop_size": (16, 16), "stride": (8, 8), "average": "logits", "crops_at_once": 1,
                "canvas": "device"}  # fmt: skip
    with pytest.raises(UserError, match=word):
        SlidingWindow(**{**settings, **changes})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("average=votes", "one of logits, probabilities"),
        ("canvas=disk", "one of device, cpu"),
        ("crops_at_once=0", "a whole number of at least 1"),
    ],
)
def test_settings_of_windows_that_make_no_sense_are_refused(change, expected):
    config = composed("inference=sliding", f"inference.window.{change}")
    with pytest.raises(UserError, match=f"inference.window.{change}: expected {expected}"):
        checked("train", config)


def test_scales_and_windows_go_together():
    one, net = image(40, 40), Aligned()
    window = SlidingWindow((24, 24), (12, 12), "logits", 4, "device")
    inference = whole(window=window, scales=[0.5, 1.0], flip=True)
    with torch.no_grad():
        (result,) = inference(net, [one])
    torch.testing.assert_close(result.sum(0), torch.ones(40, 40))
    assert inference.protocol["inference"] == "sliding"
    assert inference.protocol["crop_size"] == [24, 24]


def test_a_crf_has_the_last_word():
    seen = []

    class Refine:
        protocol = {"crf_iterations": 3}

        def __call__(self, own, probabilities):
            seen.append((own, probabilities))
            return probabilities.flip(0)

    one, net = image(12, 12), Net()
    inference = whole(crf=Refine())
    (result,) = inference(net, [one])
    assert torch.equal(seen[0][0], one)
    torch.testing.assert_close(seen[0][1].sum(0), torch.ones(12, 12))
    assert torch.equal(result, seen[0][1].flip(0))
    assert inference.protocol["crf"] is True
    assert inference.protocol["crf_iterations"] == 3


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_what_windows_average_is_what_is_resized(average):
    """At another scale probabilities come back as probabilities, logits as logits."""
    one, net = image(40, 30), Aligned()
    window = SlidingWindow((16, 16), (8, 8), average, 4, "device")
    half = F.interpolate(one[None].float(), (20, 15), mode="bilinear", antialias=True)
    with torch.no_grad():
        (result,) = whole(scales=[0.5], window=window)(net, [one])
        scores = window(net, half, None)
    if average == "probabilities":
        expected = F.interpolate(scores.exp(), (40, 30), mode="bilinear")[0]
        torch.testing.assert_close(result.softmax(0), expected, atol=1e-5, rtol=1e-5)
    else:
        expected = F.interpolate(scores, (40, 30), mode="bilinear")[0]
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_padding_has_the_colour_that_training_pads_with(dtype):
    net = Aligned()
    net.backbone = nn.Module()
    net.backbone.normalize = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    net.backbone.output_stride = 8
    net.align_corners = True
    seen = []
    net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    picture = torch.full((1, 3, 5, 5), 7).to(dtype)
    window = SlidingWindow((9, 9), (9, 9), "logits", 1, "device")
    with torch.no_grad():
        window(net, picture, None)
        look_once(net, picture, None, (5, 5), pad=True)
    for padded in seen:
        assert padded.shape == (1, 3, 9, 9)
        assert padded[0, :, -1, -1].tolist() == list(MEAN_RGB)


class Sized(Net):
    """A network with aligned corners that keeps what it sees."""

    def __init__(self, align_corners):
        super().__init__()
        self.align_corners = align_corners
        self.backbone = nn.Module()
        self.backbone.normalize = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        self.backbone.output_stride = 4
        self.seen = []

    def forward(self, image):
        self.seen.append(image)
        return {**super().forward(image), "align_corners": self.align_corners}


@pytest.mark.parametrize("align_corners", [True, False])
def test_pictures_are_padded_to_the_least_size_at_every_scale(align_corners):
    net, one = Sized(align_corners), image(20, 40)
    inference = SemanticInference(None, True, [0.5, 1.0], False, None, None, least_size=(33, 33))
    (result,) = inference(net, [one])
    assert result.shape == (5, 20, 40)
    half, whole_size = net.seen
    assert tuple(half.shape[2:]) == ((17, 21) if align_corners else (17, 20))
    assert tuple(whole_size.shape[2:]) == ((33, 41) if align_corners else (33, 40))
    assert torch.equal(whole_size[0, :, :20, :40], one)
    assert whole_size[0, :, 20:].flatten(1).unique(dim=1).squeeze(1).tolist() == list(MEAN_RGB)
    assert inference.protocol["least_size"] == [33, 33]


def test_a_picture_that_is_large_enough_is_left_alone():
    net, one = Sized(align_corners=False), image(20, 40)
    padded = SemanticInference(None, True, [1.0], False, None, None, least_size=(8, 8))
    assert torch.equal(padded(net, [one])[0], whole()(net, [one])[0])
