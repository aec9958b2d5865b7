"""Pieces that more than one architecture uses."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def conv_norm_act(
    in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1, stride: int = 1
) -> nn.Sequential:
    """Padded convolution, batch norm, ReLU: (N, in, h, w) -> (N, out, h / stride, w / stride)."""
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            bias=False,
        ),
        BatchNorm(out_channels),
        nn.ReLU(inplace=True),
    )


def separable_conv_norm_act(
    in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1
) -> nn.Sequential:
    """Depthwise, then 1x1 convolution, batch norm and ReLU after both (DeepLabv3+, figure 3)."""
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        nn.Conv2d(
            in_channels,
            in_channels,
            kernel_size,
            padding=padding,
            dilation=dilation,
            groups=in_channels,
            bias=False,
        ),
        BatchNorm(in_channels),
        nn.ReLU(inplace=True),
        *conv_norm_act(in_channels, out_channels, kernel_size=1),
    )


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that uses its running statistics where one value per channel has no variance.

    This happens behind global pooling with one image per process. Otherwise it is nn.BatchNorm2d.
    """

    def forward(self, x: Tensor) -> Tensor:  # (N, C, h, w) -> (N, C, h, w)
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(x)


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Every batch norm, synchronised or not."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


class FCNHead(nn.Module):
    """3x3 convolution to fewer channels, batch norm, ReLU, dropout, 1x1 classifier.

    The auxiliary head of PSPNet and EncNet, and the head of the dilated FCN. The classifier starts
    from N(0, 0.01), as MMSegmentation's; torchvision's and EncNet's code leave PyTorch's own.

    Args:
        in_channels: C.
        num_classes: K.
        dropout: before the classifier.
        convolutions: how many 3x3 convolutions follow each other.
        dilation: of all of them.
        concatenate_input: whether the input joins their output in one more 3x3 convolution.
        channels: of the convolutions; None: a quarter of the input's.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        dropout: float,
        convolutions: int = 1,
        dilation: int = 1,
        concatenate_input: bool = False,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        channels = channels or in_channels // 4
        widths = [in_channels, *[channels] * (convolutions - 1)]
        self.conv = nn.Sequential(
            *(layer for width in widths for layer in conv_norm_act(width, channels, 3, dilation))
        )
        self.fusion = (
            conv_norm_act(in_channels + channels, channels, 3) if concatenate_input else None
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        init_head(self)
        init_classifier(self.classifier)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, h, w) -> (N, K, h, w)
        features = self.conv(x)
        if self.fusion is not None:
            features = self.fusion(concatenate([x, features]))
        return self.classifier(self.dropout(features))


class Normalize(nn.Module):
    """RGB in 0..255, uint8 or float, -> float with the mean and deviation that weights expect.

    Args:
        mean, std: one number a channel, of values in 0..1.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:  # (N, 3, H, W) -> (N, 3, H, W)
        return (image.float() - self.mean) / self.std


def at_least_float32(x: Tensor) -> Tensor:
    """What autocast has made narrow, wide again; float64 stays."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def concatenate(maps: list[Tensor]) -> Tensor:
    """(N, C_i, h, w) each -> (N, sum of C_i, h, w), in the memory format of the first.

    Where one map's format is ambiguous, as that of a 1x1 map blown up, PyTorch falls back to its
    default format, and every layer behind pays for it.
    """
    last = maps[0].is_contiguous(memory_format=torch.channels_last)
    form = torch.channels_last if last else torch.contiguous_format
    return torch.cat([m.contiguous(memory_format=form) for m in maps], dim=1)


def init_head(head: nn.Module) -> None:
    """He initialisation (He et al. 2015) of convolutions that ReLUs follow; norms stay 1, 0.

    By fan-out: how many values one input value goes into.
    """
    for module in head.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            with torch.no_grad():
                module.weight.mul_(module.groups**0.5)  # PyTorch counts the outputs of all groups
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def init_classifier(layer: nn.Conv2d, std: float = 0.01) -> None:
    """Weights from N(0, std), no bias: the first scores are near zero, however few the classes are.

    After He initialisation, whose fan-out is the number of classes, they start large, and sure of
    what is wrong.
    """
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
