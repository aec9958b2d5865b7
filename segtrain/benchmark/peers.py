"""The same networks in public libraries, which measurements stand beside."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from segtrain.errors import UserError


@dataclass(frozen=True)
class Peer:
    """A public network of the same structure.

    Args:
        library: its name.
        build: (ResNet's name, classes) -> untrained network.
        same: the choices with which the network here is the same.
    """

    library: str
    build: Callable[[str, int], nn.Module]
    same: str


def torchvision_deeplabv3(backbone: str, classes: int) -> nn.Module:
    """torchvision's DeepLabv3 with its auxiliary head."""
    from torchvision.models import segmentation

    build = getattr(segmentation, f"deeplabv3_{backbone}")
    return build(weights=None, weights_backbone=None, num_classes=classes, aux_loss=True)


def torchvision_fcn(backbone: str, classes: int) -> nn.Module:
    """torchvision's FCN with its auxiliary head."""
    from torchvision.models import segmentation

    build = getattr(segmentation, f"fcn_{backbone}")
    return build(weights=None, weights_backbone=None, num_classes=classes, aux_loss=True)


class SmpPSPNet(nn.Module):
    """Encoder, pyramid pooling, convolution and head of segmentation_models.pytorch, put together
    as in the paper: output stride 8, 3x3 convolution to 512 channels. Its own PSPNet class stops at
    the encoder's second stage by default and has a 1x1 convolution there.
    """

    def __init__(self, backbone: str, classes: int) -> None:
        super().__init__()
        try:
            from segmentation_models_pytorch.base import SegmentationHead
            from segmentation_models_pytorch.base.modules import Conv2dReLU
            from segmentation_models_pytorch.decoders.pspnet.decoder import PSPModule
            from segmentation_models_pytorch.encoders import get_encoder
        except ImportError:
            raise UserError("the peer is segmentation_models.pytorch: "
                            "pip install segmentation-models-pytorch") from None  # fmt: skip
        self.encoder = get_encoder(backbone, weights=None, output_stride=8)
        width = self.encoder.out_channels[-1]
        self.pyramid = PSPModule(width)
        self.conv = Conv2dReLU(2 * width, 512, kernel_size=3, padding=1)
        self.dropout = nn.Dropout2d(0.1)
        self.head = SegmentationHead(512, classes, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:  # (N, 3, H, W) -> (N, K, h, w)
        features = self.conv(self.pyramid(self.encoder(image)[-1]))
        return self.head(self.dropout(features))


def smp_deeplabv3plus(backbone: str, classes: int) -> nn.Module:
    """DeepLabv3+ of segmentation_models.pytorch at output stride 16; its scores have a quarter of
    the image's side, as its users' have before the last layer, which resizes them.
    """
    try:
        from segmentation_models_pytorch import DeepLabV3Plus
    except ImportError:
        raise UserError("the peer is segmentation_models.pytorch: "
                        "pip install segmentation-models-pytorch") from None  # fmt: skip
    return DeepLabV3Plus(
        backbone, encoder_weights=None, encoder_output_stride=16, classes=classes, upsampling=1
    )


PEERS = {
    "DeepLabv3": Peer(
        "torchvision", torchvision_deeplabv3, "choose architecture=deeplabv3_torchvision"
    ),
    "DeepLabv3Plus": Peer("smp", smp_deeplabv3plus, "choose architecture.separable=true"),
    "DilatedFCN": Peer("torchvision", torchvision_fcn, "choose architecture=fcn_torchvision"),
    "PSPNet": Peer(
        "smp",
        SmpPSPNet,
        "choose architecture.backbone.name=resnet50 architecture.auxiliary=false",
    ),
}
