"""VGG-16 backbones: geometry, dilation, and weights of torchvision's and timm's files."""

import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import vgg16
from torchvision.models.vgg import make_layers

from segtrain.architecture.semantic.deconvnet import SwitchVGG16
from segtrain.architecture.vgg import VGG16, ReducedVGG16, read_vgg16
from segtrain.errors import UserError
from segtrain.trained import without_pretraining

NARROW = [4, 4, 6, 6, 8]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One random vgg16 in torchvision's names and in timm's, on disk."""
    folder = tmp_path_factory.mktemp("vgg")
    torch.manual_seed(0)
    model = vgg16(weights=None)
    state = model.state_dict()
    torch.save(state, folder / "torchvision.pth")
    renamed = {k: v for k, v in state.items() if k.startswith("features.")}
    for old, new, shape in (("classifier.0", "pre_logits.fc1", (4096, 512, 7, 7)),
                            ("classifier.3", "pre_logits.fc2", (4096, 4096, 1, 1))):  # fmt: skip
        renamed[f"{new}.weight"] = state[f"{old}.weight"].reshape(shape)
        renamed[f"{new}.bias"] = state[f"{old}.bias"]
    torch.save(renamed, folder / "timm.pth")
    return model.eval(), folder


@pytest.mark.parametrize("name", ["torchvision", "timm"])
def test_fully_convolutional_vgg_equals_torchvisions_classifier(files, name):
    """On one 224x224 image without the padding of 100, fc7 is the classifier's second layer."""
    peer, folder = files
    ours = VGG16(str(folder / f"{name}.pth"), ["pool5", "fc7"], 1, 0, [64, 128, 256, 512, 512],
                 4096).eval()  # fmt: skip
    image = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    with torch.no_grad():
        normalised = ours.normalize(image)
        expected = peer.classifier[:5](peer.features(normalised).flatten(1))
        pool5, fc7 = ours(image)
    assert (pool5 - peer.features(normalised)).abs().max() <= 1e-4
    assert fc7.shape == (1, 4096, 1, 1)
    assert (fc7.flatten(1) - expected).abs().max() <= 1e-4


class NarrowVGG(nn.Module):
    """A narrow vgg16 by torchvision's names, of the image that its weights are made for."""

    def __init__(self):
        super().__init__()
        layers = [4, 4, "M", 4, 4, "M", 6, 6, 6, "M", 6, 6, 6, "M", 8, 8, 8, "M"]
        self.features = make_layers(layers)
        self.classifier = nn.Sequential(
            nn.Linear(8 * 49, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 16), nn.ReLU()
        )

    def forward(self, image):
        return self.classifier(self.features(image).flatten(1))


@pytest.fixture(params=["torchvision's names", "one further"])
def caffe(request, tmp_path):
    """A narrow vgg16 as Caffe's, which takes BGR, and its file, by either names of its layers."""
    torch.manual_seed(0)
    peer = NarrowVGG().eval()
    state = peer.state_dict()
    if request.param == "one further":
        names = {"classifier.3": "classifier.4", "classifier.0": "classifier.1"}
        state = {names.get(k[:12], k[:12]) + k[12:]: v for k, v in state.items()}
    torch.save(state, tmp_path / "vgg16.pth")
    return peer, tmp_path / "vgg16.pth"


CAFFE_MEAN = torch.tensor([104.00699, 116.66877, 122.67892]).view(3, 1, 1)  # blue, green, red


@pytest.mark.parametrize("kind", [VGG16, SwitchVGG16])
def test_caffe_weights_take_bgr_less_the_mean_alone(kind, caffe):
    peer, file = caffe
    weights = f"vgg16_caffe:{file}"
    if kind is VGG16:
        ours = VGG16(weights, ["fc7"], 1, 0, NARROW, 16).eval()
    else:
        ours = SwitchVGG16(weights, NARROW, 16, 7).eval()
    image = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    with torch.no_grad():
        expected = peer(image.flip(1).float() - CAFFE_MEAN)
        fc7 = ours(image)[0].flatten(1)
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(fc7, expected, atol=1e-3, rtol=1e-3)


def test_flavours_without_weights_keep_their_image():
    """As where a checkpoint's weights are loaded afterwards."""
    architecture = {"backbone": {"weights": "vgg16_caffe"}}
    weights = without_pretraining(architecture)["backbone"]["weights"]
    vgg = VGG16(weights, ["fc7"], 1, 0, NARROW, 16)
    image = torch.randint(0, 256, (1, 3, 4, 4), dtype=torch.uint8)
    torch.testing.assert_close(vgg.normalize(image), image.float() - CAFFE_MEAN.flip(0))


def test_caffe_weights_by_name(caffe, monkeypatch, tmp_path):
    """They are fetched once, and checked by the hash in their name."""
    asked = []

    def download(url, path, hash_prefix):
        asked.append((url.rpartition("/")[2], hash_prefix))
        shutil.copy(caffe[1], path)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    states = [read_vgg16("vgg16_caffe") for _ in range(2)]
    assert asked == [("vgg16-00b39a1b.pth", "00b39a1b")]
    turned = caffe[0].features[0].weight.flip(1)
    assert all(torch.equal(state["features.0.weight"], turned) for state in states)


def test_caffe_weights_offline(monkeypatch, tmp_path):
    def offline(*arguments, **settings):
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(UserError, match=r"backbone.weights=vgg16_caffe:<file>, of https://"):
        VGG16("vgg16_caffe", ["fc7"], 1, 0, NARROW, 16)


def test_reduced_vgg_samples_the_fully_connected_layers(files):
    """fc6: every fourth filter, every third tap of 7x7; fc7: every fourth row and column."""
    peer, folder = files
    ours = ReducedVGG16(str(folder / "torchvision.pth"), ["fc7"], [6, 12], [64, 128, 256, 512, 512],
                        1024)  # fmt: skip
    full = peer.classifier[0].weight.reshape(4096, 512, 7, 7)
    for fc6, fc7 in zip(ours.fc6, ours.fc7, strict=True):
        assert torch.equal(fc6.weight, full[::4, :, ::3, ::3])
        assert torch.equal(fc7.weight[:, :, 0, 0], peer.classifier[3].weight[::4, ::4])
    assert [layer.dilation[0] for layer in ours.fc6] == [6, 12]


def test_switch_vgg_loads_and_starts_neutral(files):
    peer, folder = files
    ours = SwitchVGG16(str(folder / "torchvision.pth"), [64, 128, 256, 512, 512], 4096, 7).eval()
    image = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    with torch.no_grad():
        code, switches = ours(image)
        normalised = ours.normalize(image)
        expected = peer.classifier[:5](peer.features(normalised).flatten(1))
    # Untrained batch norm divides by sqrt(1 + eps) in each of the 15 layers.
    torch.testing.assert_close(code.flatten(1), expected, atol=1e-4, rtol=1e-3)
    assert [size for _, size in switches] == [[224 // 2**i] * 2 for i in range(5)]


def test_other_files_are_refused(tmp_path):
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"not the weights of vgg16; missing: features\.0\.weight"):
        VGG16(str(tmp_path / "other.pth"), ["fc7"], 1, 0, NARROW, 16)


def test_narrow_net_refuses_full_weights(files):
    _, folder = files
    with pytest.raises(UserError, match="does not fit"):
        VGG16(str(folder / "timm.pth"), ["fc7"], 1, 0, NARROW, 16)


def test_unknown_map():
    with pytest.raises(UserError, match=r"maps=\['fc8'\]: choose from conv1, pool1"):
        VGG16("none", ["fc8"], 1, 0, NARROW, 16)


def test_offline(monkeypatch):
    import timm

    def offline(*arguments, **settings):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match="could not be fetched.*backbone.weights=<file>"):
        VGG16("imagenet", ["fc7"], 1, 0, NARROW, 16)


def test_geometry_is_where_the_pixels_are():
    """The gradient of one cell of each map is centred on the image coordinate that is stated."""
    names = ["conv1", "pool1", "conv2", "pool2", "pool3", "pool4"]
    vgg = VGG16("none", names, 100, 0, NARROW, 16).eval()
    for parameter in vgg.parameters():
        torch.nn.init.constant_(parameter, 0.1)  # positive: every path counts
    image = torch.full((1, 3, 96, 96), 128.0, requires_grad=True)
    for feature, stride, start in zip(vgg(image), vgg.strides, vgg.starts, strict=True):
        cell = round((48 - start) / stride)
        (gradient,) = torch.autograd.grad(feature[0, 0, cell, cell], image, retain_graph=True)
        rows = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
        seen = (rows.min() + rows.max()).item() / 2
        assert abs(seen - (start + cell * stride)) <= stride / 2


def test_reduced_vgg_is_dilated_and_at_stride_8():
    vgg = ReducedVGG16("none", ["conv3", "conv4", "conv5", "fc7"], [12], NARROW, 16)
    assert [layer.dilation[0] for layer in vgg.stages[4] if hasattr(layer, "dilation")] == [2, 2, 2]
    assert vgg.strides == [4, 8, 8, 8]
    maps = vgg(torch.zeros(1, 3, 65, 81, dtype=torch.uint8))
    assert [tuple(m.shape[2:]) for m in maps] == [(17, 21), (9, 11), (9, 11), (9, 11)]
    x = torch.randn(1, 8, 9, 11)  # a rate of 12 sees nothing but its centre on a map of 9x11
    centre = F.conv2d(x, vgg.fc6[0].weight[:, :, 1:2, 1:2], vgg.fc6[0].bias)
    torch.testing.assert_close(vgg.fc6[0](x), centre, atol=1e-5, rtol=1e-5)
