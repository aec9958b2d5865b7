import pytest
import torch
from conftest import architectures, composed
from torch import nn

from segtrain.architecture.backbone import TimmBackbone
from segtrain.assembly import build_model
from segtrain.errors import UserError


def backbone(
    name="test_resnet",
    weights="none",
    output_stride=8,
    multi_grid=None,
    uniform=False,
    stride_in_1x1=False,
    **more,
):
    return TimmBackbone(
        name, weights, output_stride, uniform, multi_grid, more, stride_in_1x1=stride_in_1x1
    )


MODERN = ["convnext_atto", "swin_tiny_patch4_window7_224", "efficientnet_b0", "pvt_v2_b0",
          "sam2_hiera_tiny", "mobilenetv4_conv_small", "efficientvit_b0"]  # fmt: skip


@pytest.mark.parametrize("name", ["resnet18", "test_resnet", "mobilenetv3_small_050", "resnet10t"])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_contract(name, output_stride):
    model = backbone(name, output_stride=output_stride).eval()
    maps = model(torch.zeros(1, 3, 64, 96, dtype=torch.uint8))
    assert len(maps) == 4
    assert [m.shape[1] for m in maps] == model.channels
    assert [64 // m.shape[2] for m in maps] == model.strides
    assert model.strides[-1] == model.output_stride == output_stride


def test_uint8_input_is_normalised_inside():
    model = backbone("resnet18").eval()
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    expected = model.body((image / 255 - mean) / std)
    for got, want in zip(model(image), expected, strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("output_stride", "rates"), [(16, [2, 4, 8]), (8, [4, 8, 16])])
def test_multi_grid_rates(output_stride, rates):
    """DeepLabv3 section 3.3: unit rates (1, 2, 4) times 2 at output stride 16, times 4 at 8."""
    model = backbone("resnet50", output_stride=output_stride, multi_grid=[1, 2, 4])
    found = [block.conv2.dilation[0] for block in model.body.layer4]
    assert found == rates


def test_dilation_without_multi_grid_is_torchvisions():
    from torchvision.models import resnet50

    ours = backbone("resnet50", output_stride=8).body
    peer = resnet50(weights=None, replace_stride_with_dilation=[False, True, True])
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        for block, other in zip(getattr(ours, stage), getattr(peer, stage), strict=True):
            assert block.conv2.dilation == other.conv2.dilation
            assert block.conv2.stride == other.conv2.stride


@pytest.mark.parametrize(("output_stride", "strided"), [(32, 3), (8, 1)])
def test_stride_in_1x1(output_stride, strided):
    """Bottlenecks with a stride drop every second pixel at once; their shortcuts are unchanged."""
    model = backbone("resnet50", output_stride=output_stride, stride_in_1x1=True)
    usual = backbone("resnet50", output_stride=output_stride)
    found = 0
    for number in range(1, 5):
        stage, other = (getattr(m.body, f"layer{number}") for m in (model, usual))
        for block, peer in zip(stage, other, strict=True):
            assert (block.conv1.stride, block.conv2.stride) == (peer.conv2.stride, (1, 1))
            assert block.conv2.dilation == peer.conv2.dilation
            found += block.conv1.stride == (2, 2)
    assert found == strided
    shapes = [[m.shape for m in net(torch.zeros(1, 3, 64, 96))] for net in (model, usual)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("stride", "uniform", "multi_grid", "dilations", "third", "last"),
    [
        (32, False, None, (2, 4), [1, 2, 2, 2, 2, 2], [2, 4, 4]),
        (32, True, None, (2, 4), [2, 2, 2, 2, 2, 2], [4, 4, 4]),
        (16, False, None, (1, 1), [1, 1, 1, 1, 1, 1], [1, 1, 1]),
        (16, False, [1, 2, 4], (1, 1), [1, 1, 1, 1, 1, 1], [1, 2, 4]),
    ],
)
def test_stages_are_dilated_whatever_the_stride(
    stride, uniform, multi_grid, dilations, third, last
):
    model = TimmBackbone("resnet50", "none", stride, uniform, multi_grid, {}, dilations)
    for stage, rates in ((model.body.layer3, third), (model.body.layer4, last)):
        assert [block.conv2.dilation[0] for block in stage] == rates
    maps = model(torch.zeros(1, 3, 64, 96, dtype=torch.uint8))
    assert [64 // m.shape[2] for m in maps] == model.strides
    assert model.strides[-1] == stride


def test_second_convolutions_without_dilation():
    model = TimmBackbone("resnet18", "none", 8, False, None, {}, dilate_second=False)
    rates = [
        [block.conv1.dilation[0], block.conv2.dilation[0]]
        for block in (*model.body.layer3, *model.body.layer4)
    ]
    assert rates == [[1, 1], [2, 1], [2, 1], [4, 1]]
    assert model(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))[-1].shape[2:] == (8, 8)


def test_dilations_of_stages_need_a_resnet():
    with pytest.raises(UserError, match="stage_dilations"):
        TimmBackbone("mobilenetv3_small_050", "none", 16, False, None, {}, (1, 1))


def test_weights_file(tmp_path):
    import timm

    donor = timm.create_model("resnet18", num_classes=5)
    torch.save(donor.state_dict(), tmp_path / "r18.pth")
    model = backbone("resnet18", weights=str(tmp_path / "r18.pth"))
    assert torch.equal(model.body.layer4[1].conv2.weight, donor.layer4[1].conv2.weight)
    with pytest.raises(UserError, match=r"(?s)does not fit.*missing in the file"):
        backbone("resnet50", weights=str(tmp_path / "r18.pth"))
    with pytest.raises(UserError, match="no such weights file"):
        backbone("resnet18", weights="gone.pth")


def test_imagenet_weights_without_network(monkeypatch):
    import timm

    def offline(*arguments, **settings):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match="could not be fetched.*backbone.weights=<file>"):
        backbone("resnet18", weights="imagenet")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnet81"}, "timm has no model 'resnet81'; nearest: "),
        ({"name": "resnet18", "multi_grid": [1, 2, 4]}, "needs a ResNet whose last stage has 3"),
        ({"name": "vgg11", "output_stride": 8}, "vgg11"),
        ({"name": "hiera_tiny_224", "output_stride": 32}, "takes images of one size only"),
        ({"name": "test_vit", "output_stride": 32}, "plain vision transformer.*backbone=vit_pyr"),
        ({"name": "mobilenetv3_small_050", "uniform": True}, "uniform_dilation needs a ResNet"),
        ({"name": "resnet18", "stride_in_1x1": True}, "stride_in_1x1 needs a ResNet with bottlen"),
        ({"name": "vgg11", "output_stride": 32, "stride_in_1x1": True}, "stride_in_1x1 needs a R"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(UserError, match=message):
        backbone(**settings)


def test_narrow_variant():
    model = backbone("resnet10t", channels=(8, 16, 24, 32), stem_width=8)
    assert model.channels == [8, 16, 24, 32]
    assert isinstance(model, nn.Module)


@pytest.mark.parametrize("name", MODERN)
@pytest.mark.parametrize("size", [(33, 47), (64, 97)])
def test_modern_backbones_take_any_size(name, size):
    model = backbone(name, output_stride=32).eval()
    with torch.no_grad():
        maps = model(torch.zeros(1, 3, *size, dtype=torch.uint8))
    assert [m.shape[1] for m in maps] == model.channels
    for stride, m in zip(model.strides, maps, strict=True):
        for length, got in zip(size, m.shape[2:], strict=True):
            assert length // stride <= got <= -(-length // stride)


OWN_BACKBONE = {"deconvnet", "pidnet", "dpt"}  # mirrored encoder, three branches, plain ViT


@pytest.mark.parametrize("name", sorted(set(architectures("semantic")) - OWN_BACKBONE))
def test_modern_backbone_by_one_choice(name):
    """All architectures take any timm model, but those whose backbone is a part of their design."""
    if name in ("deeplabv2_vgg16", "deeplabv3_cascade"):
        pytest.skip("the paper's variant for one kind of backbone; its main variant takes any")
    config = composed(f"architecture={name}", "architecture/backbone=timm",
                      "architecture.backbone.name=convnext_atto",
                      "architecture.backbone.weights=none")  # fmt: skip
    model = build_model(config, 4).eval()
    with torch.no_grad():
        logits = model(torch.zeros(2, 3, 70, 95, dtype=torch.uint8))["logits"]
    assert logits.shape[:2] == (2, 4)
    assert logits.isfinite().all()
