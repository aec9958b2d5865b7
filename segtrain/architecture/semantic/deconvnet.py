"""DeconvNet: Noh, Hong & Han, Learning Deconvolution Network for Segmentation, ICCV 2015."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.architecture.blocks import BatchNorm, Normalize, init_classifier
from segtrain.architecture.imagenet import flavour_of
from segtrain.architecture.vgg import (
    CONVOLUTIONS,
    VGG16_CONVOLUTIONS,
    Channels,
    of_layers,
    read_vgg16,
)
from segtrain.architecture.weights import load_weights
from segtrain.contracts import Outputs
from segtrain.values import Count, Text


class SwitchVGG16(nn.Module):
    """VGG-16 with batch norm after every layer, which remembers where each maximum was (3.1).

    Args:
        weights: as for `VGG16`. They have no batch norm; it starts neutral.
        channels: of the five stages.
        fc_channels: of fc6 and fc7.
        fc6_size: kernel of fc6, and so the smallest map it sees: 7.

    Attributes:
        name: of the network.
        output_stride: of the last pooled map.
        minimum_size: of an input, in pixels; smaller ones are padded.
    """

    def __init__(
        self, weights: Text, channels: Channels, fc_channels: Count, fc6_size: Count
    ) -> None:
        super().__init__()
        self.name = "vgg16_bn_switches"
        self.channels = channels
        self.fc_channels = fc_channels
        self.fc6_size = fc6_size
        self.output_stride = 2 ** len(channels)
        self.minimum_size = self.output_stride * fc6_size
        self.normalize = Normalize(*flavour_of(weights)[0][:2])
        widths = [3, *channels]
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    layer
                    for index in range(count)
                    for layer in conv_norm_relu(widths[stage + (index > 0)], channels[stage], 3, 1)
                )
            )
            for stage, count in enumerate(CONVOLUTIONS)
        )
        self.fc6 = conv_norm_relu(channels[-1], fc_channels, fc6_size, 0)
        self.fc7 = conv_norm_relu(fc_channels, fc_channels, 1, 0)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if flavour_of(weights)[1] != "none":
            self._load(weights)

    def forward(self, image: Tensor) -> tuple[Tensor, list[tuple[Tensor, list[int]]]]:
        """(N, 3, H, W) RGB in 0..255 -> fc7 (N, C, h, w), and switches and size of each pooling."""
        x, switches = self.normalize(image), []
        # Zero is the mean colour after normalisation.
        missing = [max(0, self.minimum_size - length) for length in image.shape[2:]]
        x = F.pad(x, (0, missing[1], 0, missing[0]))
        for stage in self.stages:
            x = stage(x)
            size = list(x.shape[2:])
            x, indices = F.max_pool2d(x, 2, 2, return_indices=True)
            switches.append((indices, size))
        return self.fc7(self.fc6(x)), switches

    def _load(self, weights: str) -> None:
        state = read_vgg16(weights)
        layers = [name for name, layer in self.named_modules() if isinstance(layer, nn.Conv2d)]
        loaded = of_layers(layers, [*VGG16_CONVOLUTIONS, "fc6", "fc7"], state)
        load_weights(self, self.state_dict() | loaded, weights)


class DeconvNet(nn.Module):
    """Encoder with switches and its mirror: unpooling to where the maxima were, and deconvolution.

    Trained on and made for crops of 224x224 pixels around objects; larger images of any size work
    as well, since fc6 is a convolution, and smaller ones are padded to 224 with the mean colour.
    Deconvolutions and classifier start from N(0, 0.01), as in the authors' training nets.

    Args:
        backbone: the encoder.
        num_classes: K.
    """

    def __init__(self, backbone: SwitchVGG16, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.align_corners = False  # logits have the size of the image
        channels = backbone.channels
        self.fc6 = deconv_norm_relu(backbone.fc_channels, channels[-1], backbone.fc6_size, 0)
        self.stages = nn.ModuleList()  # from the deepest
        for stage in reversed(range(len(channels))):
            last = channels[max(stage - 1, 0)]
            widths = [channels[stage]] * CONVOLUTIONS[stage] + [last]
            self.stages.append(
                nn.Sequential(
                    *(
                        layer
                        for wide, out in zip(widths[:-1], widths[1:], strict=True)
                        for layer in deconv_norm_relu(wide, out, 3, 1)
                    )
                )
            )
        self.classifier = nn.Conv2d(channels[0], num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=0.01)  # batch norm follows
        init_classifier(self.classifier)

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) RGB in 0..255 -> logits (N, K, H, W)."""
        code, switches = self.backbone(image)
        x = self.fc6(code)
        for stage, (indices, size) in zip(self.stages, reversed(switches), strict=True):
            x = stage(unpool(x, indices, size))
        height, width = image.shape[2:]
        logits = self.classifier(x)[:, :, :height, :width]
        return {"logits": logits, "align_corners": self.align_corners}


def unpool(x: Tensor, indices: Tensor, size: list[int]) -> Tensor:
    """Values (N, C, h, w) where the maxima of a 2x2 pooling were, zero elsewhere: (N, C, *size)."""
    if not torch.are_deterministic_algorithms_enabled():
        return F.max_unpool2d(x, indices, 2, 2, output_size=size)
    flat = x.new_zeros(*x.shape[:2], size[0] * size[1])  # max_unpool2d has no such version
    return flat.scatter(2, indices.flatten(2), x.flatten(2)).unflatten(2, size)


def conv_norm_relu(wide: int, out: int, kernel_size: int, padding: int) -> nn.Sequential:
    """Convolution with bias, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(wide, out, kernel_size, padding=padding), BatchNorm(out), nn.ReLU(inplace=True)
    )


def deconv_norm_relu(wide: int, out: int, kernel_size: int, padding: int) -> nn.Sequential:
    """Transposed convolution of stride 1 with bias, batch norm, ReLU."""
    return nn.Sequential(
        nn.ConvTranspose2d(wide, out, kernel_size, padding=padding),
        BatchNorm(out),
        nn.ReLU(inplace=True),
    )
