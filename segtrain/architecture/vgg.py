"""Fully convolutional VGG-16 (Simonyan & Zisserman, ICLR 2015) of FCN, DeepLab and ParseNet."""

from typing import Annotated

import timm
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.architecture.blocks import Normalize
from segtrain.architecture.imagenet import fetch_flavour, flavour_of
from segtrain.architecture.weights import load_weights, not_fetched, read_state_dict
from segtrain.errors import UserError
from segtrain.values import FILLED, Count, Counts, Natural, Text

CONVOLUTIONS = (2, 2, 3, 3, 3)  # of each stage
Channels = tuple[Count, Count, Count, Count, Count]
VGG16_CONVOLUTIONS = [  # in the state dicts of timm and torchvision
    f"features.{number}" for number in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
]


class VGG16(nn.Module):
    """VGG-16 whose fully connected layers are convolutions (FCN, section 4.1): fc6 7x7, fc7 1x1.

    Args:
        weights: `imagenet` (torchvision's, downloaded by timm), `none` (random), or a file with the
            state dict of timm's or torchvision's vgg16. `vgg16_caffe` for those of the Caffe
            networks, `vgg16_caffe:<file>` where they lie on the disk: they want another image, see
            `flavour_of`.
        maps: which maps it returns, finest first: conv1..conv5, pool1..pool5, fc7.
        padding: of the first convolution. FCN pads by 100 pixels, so that an image of any size
            gives scores that cover it after fc6, which has no padding.
        fc6_padding: 0 for FCN; with 3 and `padding` 1 every map covers the image.
        channels: of the five stages.
        fc_channels: of fc6 and fc7.

    Attributes: as of TimmBackbone.
    """

    def __init__(
        self,
        weights: Text,
        maps: Annotated[list[Text], FILLED],
        padding: Natural,
        fc6_padding: Natural,
        channels: Channels,
        fc_channels: Count,
    ) -> None:
        super().__init__()
        self.name = "vgg16"
        self.maps = maps
        self.normalize = Normalize(*flavour_of(weights)[0][:2])
        self.stages = vgg_stages(channels)
        self.stages[0][0].padding = (padding, padding)
        self.fc6 = nn.Conv2d(channels[-1], fc_channels, 7, padding=fc6_padding)
        self.fc7 = nn.Conv2d(fc_channels, fc_channels, 1)
        self.dropout = nn.Dropout(0.5)
        geometry = map_geometry(channels, fc_channels, padding, fc6_padding)
        chosen = [geometry[name] for name in checked_maps(maps, geometry)]
        self.channels, self.strides, self.starts = (list(v) for v in zip(*chosen, strict=True))
        self.output_stride = self.strides[-1]
        initialise(self, weights, [(self.fc6, self.fc7)])

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) RGB in 0..255 -> the maps asked for, each (N, channels, h, w)."""
        x, found = self.normalize(image), {}
        for number, stage in enumerate(self.stages, 1):
            found[f"conv{number}"] = x = stage(x)
            found[f"pool{number}"] = x = F.max_pool2d(x, 2, 2, ceil_mode=True)  # Caffe rounds up
        x = self.dropout(F.relu(self.fc6(x)))
        found["fc7"] = self.dropout(F.relu(self.fc7(x)))
        return [found[name] for name in self.maps]


class ReducedVGG16(nn.Module):
    """VGG-16 of DeepLab-LargeFOV (arXiv 1412.7062, section 3.1), also ParseNet's: output stride 8.

    Stages 4 and 5 keep their resolution, stage 5 is dilated by 2; fc6 is 3x3, atrous, and fc6 and
    fc7 have 1024 channels, sampled from the original's. DeepLabv2's ASPP has one pair per rate.

    Args:
        weights: as for VGG16.
        maps: which maps it returns, finest first: conv1..conv5, fc7. `fc7` stands for one map per
            rate.
        fc6_rates: atrous rates of fc6.
        channels: of the five stages.
        fc_channels: of fc6 and fc7.

    Attributes: as of TimmBackbone.
    """

    def __init__(
        self,
        weights: Text,
        maps: Annotated[list[Text], FILLED],
        fc6_rates: Counts,
        channels: Channels,
        fc_channels: Count,
    ) -> None:
        super().__init__()
        self.name = "vgg16_reduced"
        self.maps = maps
        self.normalize = Normalize(*flavour_of(weights)[0][:2])
        self.stages = vgg_stages(channels)
        for convolution in self.stages[4]:
            if isinstance(convolution, nn.Conv2d):
                convolution.dilation = convolution.padding = (2, 2)
        self.fc6 = nn.ModuleList(
            nn.Conv2d(channels[-1], fc_channels, 3, padding=rate, dilation=rate)
            for rate in fc6_rates
        )
        self.fc7 = nn.ModuleList(nn.Conv2d(fc_channels, fc_channels, 1) for _ in fc6_rates)
        self.dropout = nn.Dropout(0.5)
        strides = {"conv1": 1, "conv2": 2, "conv3": 4, "conv4": 8, "conv5": 8, "fc7": 8}
        of_map = {f"conv{n}": width for n, width in enumerate(channels, 1)} | {"fc7": fc_channels}
        names = [
            entry
            for name in checked_maps(maps, strides)
            for entry in [name] * (len(fc6_rates) if name == "fc7" else 1)
        ]
        self.channels = [of_map[name] for name in names]
        self.strides = [strides[name] for name in names]
        self.starts = [0.0] * len(names)  # its pooling is 3x3, centred
        self.output_stride = self.strides[-1]
        initialise(self, weights, list(zip(self.fc6, self.fc7, strict=True)))

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) RGB in 0..255 -> the maps asked for, each (N, channels, h, w)."""
        x, found = self.normalize(image), {}
        for number, stage in enumerate(self.stages, 1):
            found[f"conv{number}"] = [x := stage(x)]
            x = F.max_pool2d(x, 3, stride=2 if number <= 3 else 1, padding=1)
        x = F.avg_pool2d(x, 3, stride=1, padding=1)
        found["fc7"] = [
            self.dropout(F.relu(fc7(self.dropout(F.relu(fc6(x))))))
            for fc6, fc7 in zip(self.fc6, self.fc7, strict=True)
        ]
        return [feature for name in self.maps for feature in found[name]]


def vgg_stages(channels: list[int]) -> nn.ModuleList:
    """The 13 convolutions, each with ReLU, in five stages without their pooling."""
    stages, width = [], 3
    for count, out in zip(CONVOLUTIONS, channels, strict=True):
        layers: list[nn.Module] = []
        for _ in range(count):
            layers += [nn.Conv2d(width, out, 3, padding=1), nn.ReLU(inplace=True)]
            width = out
        stages.append(nn.Sequential(*layers))
    return nn.ModuleList(stages)


def map_geometry(
    channels: list[int], fc_channels: int, padding: int, fc6_padding: int
) -> dict[str, tuple[int, int, float]]:
    """Channels, stride and image coordinate of the first cell's centre of every map of VGG16."""
    geometry: dict[str, tuple[int, int, float]] = {}
    stride, start = 1, 1.0 - padding  # a 3x3 kernel's centre is one pixel in
    for number, width in enumerate(channels, 1):
        geometry[f"conv{number}"] = width, stride, start
        start += stride / 2
        stride *= 2
        geometry[f"pool{number}"] = width, stride, start
    geometry["fc7"] = fc_channels, stride, start + (3 - fc6_padding) * stride
    return geometry


def checked_maps(maps: list[str], known: dict) -> list[str]:
    """The names of the maps.

    Raises:
        UserError: there is no such map.
    """
    if not maps or any(name not in known for name in maps):
        raise UserError(f"architecture.backbone.maps={maps}: choose from {', '.join(known)}")
    return maps


def initialise(
    vgg: VGG16 | ReducedVGG16, weights: str, pairs: list[tuple[nn.Conv2d, nn.Conv2d]]
) -> None:
    """He initialisation, then the weights that are asked for.

    Args:
        vgg: receives them.
        weights: as for VGG16.
        pairs: every fc6 with its fc7.

    Raises:
        UserError: the weights cannot be fetched or do not fit.
    """
    convolutions = [layer for layer in vgg.stages.modules() if isinstance(layer, nn.Conv2d)]
    for layer in [*convolutions, *(layer for pair in pairs for layer in pair)]:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    if flavour_of(weights)[1] == "none":
        return
    state, names = read_vgg16(weights), {layer: name for name, layer in vgg.named_modules()}
    renamed = of_layers([names[layer] for layer in convolutions], VGG16_CONVOLUTIONS, state)
    for fc6, fc7 in pairs:
        rows = state["fc6.weight"].shape[0] // fc6.out_channels
        taps = 3 if fc6.kernel_size == (3, 3) else 1
        sampled = {
            "fc6.weight": state["fc6.weight"][::rows, :, ::taps, ::taps],
            "fc6.bias": state["fc6.bias"][::rows],
            "fc7.weight": state["fc7.weight"][::rows, ::rows],
            "fc7.bias": state["fc7.bias"][::rows],
        }
        renamed |= of_layers([names[fc6], names[fc7]], ["fc6", "fc7"], sampled)
    load_weights(vgg, renamed, weights)


def of_layers(new: list[str], old: list[str], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights and biases of the layers called `old` in a state dict, called `new`."""
    return {
        f"{ours}.{part}": state[f"{theirs}.{part}"]
        for ours, theirs in zip(new, old, strict=True)
        for part in ("weight", "bias")
    }


def read_vgg16(weights: str) -> dict[str, Tensor]:
    """State dict of a vgg16 that takes RGB, its first two linear layers as fc6 and fc7.

    By the names of timm, of torchvision, or of the conversions from Caffe, whose classifiers have a
    layer more in front or torchvision's.

    Raises:
        UserError: it cannot be fetched or read, or is another network's.
    """
    flavour, source = flavour_of(weights)
    if weights == "imagenet":
        try:
            state = timm.create_model("vgg16", pretrained=True).state_dict()
        except (OSError, RuntimeError) as error:
            raise not_fetched("vgg16", error) from error
    else:
        state = fetch_flavour(weights) if source == "imagenet" else read_state_dict(source)
    state = dict(state)
    for old, new in (("classifier.0", "fc6"), ("classifier.3", "fc7"),
                     ("classifier.1", "fc6"), ("classifier.4", "fc7"),
                     ("pre_logits.fc1", "fc6"), ("pre_logits.fc2", "fc7")):  # fmt: skip
        for part in ("weight", "bias"):
            if f"{old}.{part}" in state:
                state[f"{new}.{part}"] = state.pop(f"{old}.{part}")
    missing = [
        f"{name}.{part}"
        for name in (*VGG16_CONVOLUTIONS, "fc6", "fc7")
        for part in ("weight", "bias")
        if f"{name}.{part}" not in state
    ]
    if missing:
        raise UserError(f"{weights}: not the weights of vgg16; missing: {', '.join(missing)}")
    if state["fc6.weight"].ndim == 2:  # torchvision's, over the flattened 7x7 map
        state["fc6.weight"] = state["fc6.weight"].unflatten(1, (-1, 7, 7))
        state["fc7.weight"] = state["fc7.weight"][:, :, None, None]
    if flavour.bgr:
        state["features.0.weight"] = state["features.0.weight"].flip(1)
    return state
